"""The peptide model: every decoder computes in decoding what it computed in training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.peptides.small_peptides import batches, random_model

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, Beam, BlockDiffusion
from seqgen.errors import CheckpointError
from seqgen.orders import Blocks
from seqgen.training.hybrid import hybrid_context
from seqgen.training.objectives import Noise, noisy_clean, teacher_forcing
from seqgen_peptides.model import PeptideModel, load_model, parameters_of, save_model
from seqgen_peptides.residues import STOP

SLOTS = 12


@pytest.fixture(scope="module")
def model() -> PeptideModel:
    return random_model()


def _canvas(rows: int, slots: int = SLOTS) -> Canvas:
    return Canvas(torch.zeros(rows, slots, dtype=torch.int64))


def _contexts(model: PeptideModel, rows: int = 8) -> dict[str, tuple]:
    context = model.listen(batches(size=rows).batch(0).spectra)
    memory = hybrid_context(model.first_pass(), _canvas(rows, model.config.slots), context)
    return {"ar": (model.ar, context), "hybrid": (model.hybrid, memory)}


@pytest.mark.parametrize("name", ["ar", "hybrid"])
@torch.no_grad()
def test_teacher_forcing_equals_decoding(model: PeptideModel, name: str) -> None:
    """The loss of what was decoded is the mean of its log-probabilities while decoding."""
    decoder, context = _contexts(model)[name]
    found = Autoregressive().generate(decoder, _canvas(8), context)
    loss = teacher_forcing(decoder, found.values, context=context)
    torch.testing.assert_close(loss, -found.confidence_BS.log().mean(), atol=1e-4, rtol=1e-4)
    assert found.values.unique().numel() > 3, "a constant output would prove nothing"


@pytest.mark.parametrize("name", ["ar", "hybrid"])
def test_cached_equals_uncached(model: PeptideModel, name: str) -> None:
    decoder, context = _contexts(model)[name]
    a, b = (
        Autoregressive(cached=cached).generate(decoder, _canvas(8), context)
        for cached in (True, False)
    )
    assert torch.equal(a.values, b.values)
    torch.testing.assert_close(a.confidence_BS, b.confidence_BS, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [1, 3, 4, 12])
@torch.no_grad()
def test_noisy_clean_training_equals_block_decoding(model: PeptideModel, length: int) -> None:
    """Everything masked: the first pass of every block."""
    _, context = _contexts(model)["ar"]
    decoder = BlockDiffusion(block_length=length, steps=1, remasking="low_confidence_static")
    found = decoder.generate(model.block, _canvas(8), context)
    loss = noisy_clean(
        model.block,
        found.values,
        order=Blocks(length),
        generator=torch.Generator().manual_seed(0),
        noise=Noise(low=1, high=1, weighting="none"),
        context=context,
    )
    torch.testing.assert_close(loss, -found.confidence_BS.log().mean(), atol=1e-4, rtol=1e-4)


@given(seed=st.integers(0, 2**31 - 1), length=st.integers(1, 6), group=st.integers(0, 2))
@settings(deadline=None, max_examples=20)
@torch.no_grad()
def test_masked_inputs_in_training_are_those_of_decoding(
    seed: int, length: int, group: int
) -> None:
    """Masses, distance and evidence of a half-decided block, and of the blocks before it."""
    model = random_model()
    context = model.listen(batches(size=4).batch(0).spectra)
    inputs, mask_id = model.block.inputs, model.block.inputs.mask_id
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(2, len(model.residues), (4, 3 * length), generator=generator)
    masked = torch.rand(4, 3 * length, generator=generator) < 0.5
    table = Blocks(length).table(3 * length, torch.device("cpu"))
    copies = inputs.embed_copies(torch.where(masked, mask_id, clean), clean, table, context)

    span = slice(group * length, (group + 1) * length)
    decided = torch.zeros_like(masked)
    decided[:, : span.start] = True
    decided[:, span] = ~masked[:, span]
    canvas = Canvas(torch.where(decided, clean, 0), given=decided)
    slots = torch.arange(3 * length)[None, : span.stop]
    fed = inputs(canvas, slots, None, context)
    torch.testing.assert_close(fed[:, span], copies[:, span], atol=1e-5, rtol=1e-4)
    before = copies[:, 3 * length :][:, : span.start]
    torch.testing.assert_close(fed[:, : span.start], before, atol=1e-5, rtol=1e-4)


def test_a_spectrum_decodes_alike_alone_and_in_a_batch(model: PeptideModel) -> None:
    """Padding of peaks and of slots, and the company in a beam, change nothing."""
    set_ = batches(size=6)
    together = set_.batch(0)
    beam = Beam(beams=3, stop_ids=(STOP,))
    context = model.listen(together.spectra)
    found = beam.generate(model.ar, _canvas(6), context).hypotheses
    assert found is not None
    for row in range(6):
        spectra = {name: value[row : row + 1] for name, value in vars(together.spectra).items()}
        peaks = int(spectra["valid_BP"].sum())
        for name in ("mz_BP", "intensity_BP", "valid_BP"):
            spectra[name] = spectra[name][:, :peaks]
        alone = model.listen(type(together.spectra)(**spectra))
        one = beam.generate(model.ar, _canvas(1), alone).hypotheses
        assert one is not None
        assert one.sequences(0) == found.sequences(row)
        torch.testing.assert_close(one.score_BN[0], found.score_BN[row], atol=1e-4, rtol=1e-4)


def test_hypotheses_of_a_spectrum_see_its_own_masses(model: PeptideModel) -> None:
    """Beams and greedy decoding read the same evidence: one beam is greedy."""
    decoder, context = _contexts(model)["ar"]
    greedy = Autoregressive(stop_ids=(STOP,)).generate(decoder, _canvas(8), context)
    beam = Beam(beams=1, stop_ids=(STOP,)).generate(decoder, _canvas(8), context)
    assert greedy.sequences() == beam.sequences()


@pytest.mark.parametrize(
    "switch", ["complement", "rotary", "ladder", "running_masses", "slot_masses", "ion_evidence"]
)
def test_options_change_the_model_and_survive_a_file(tmp_path: Path, switch: str) -> None:
    model = random_model(**{switch: False})
    context = model.listen(batches().batch(0).spectra)
    expected = Autoregressive().generate(model.half().float().ar, _canvas(8), context)
    file = save_model(model, tmp_path / "model.safetensors", {"seed": 0})
    loaded = load_model(file)
    assert loaded.config == model.config
    again = loaded.listen(batches().batch(0).spectra)
    found = Autoregressive().generate(loaded.ar, _canvas(8), again)
    assert torch.equal(found.values, expected.values)


def test_masses_keep_float64_in_half_precision(model: PeptideModel) -> None:
    half = random_model().to(torch.bfloat16)
    assert half.ar.inputs.features.masses_V.dtype == torch.float64
    assert half.encoder.sines.turns.dtype == torch.float64


def test_stage_2_starts_from_the_autoregressive_weights() -> None:
    model = random_model()
    model.copy_autoregressive()
    for name, value in model.ar.state_dict().items():
        assert torch.equal(model.hybrid.state_dict()[name], value)
        assert torch.equal(model.block.state_dict()[name], value)


def test_parameters_of_a_decoder_count_what_it_runs(model: PeptideModel) -> None:
    assert parameters_of(model, "hybrid") > parameters_of(model, "ar")
    assert parameters_of(model, "hybrid") < sum(p.numel() for p in model.parameters())


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    from seqgen import checkpoints

    file = checkpoints.save(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {"kind": "speech"})
    with pytest.raises(CheckpointError, match="not a peptide model"):
        load_model(file)
