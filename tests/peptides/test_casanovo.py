"""Casanovo checkpoints: what is read from one, what does not fit, and the model as a core model.

test_casanovo_checkpoint.py shows what the reader refuses; tests/parity/test_casanovo_golden.py
compares the numbers with Casanovo's.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqgen.attention import MaskView
from seqgen.canvas import Canvas
from seqgen.constraints import Automaton
from seqgen.decoders import Autoregressive, Beam
from seqgen.errors import CheckpointError
from seqgen.orders import Raster
from seqgen.training.objectives import teacher_forcing
from seqgen_peptides.casanovo import CasanovoModel, load_casanovo
from seqgen_peptides.casanovo_checkpoint import Stub, read_checkpoint
from seqgen_peptides.residues import PAD, STANDARD, STOP
from seqgen_peptides.spectra import SpectrumBatch

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "casanovo" / "model.ckpt"


@pytest.fixture(scope="module")
def model() -> CasanovoModel:
    return load_casanovo(GOLDEN)


# --- what a checkpoint holds ---


def test_the_vocabulary_keeps_its_ids(model: CasanovoModel) -> None:
    assert model.residues.tokens == tuple(STANDARD)
    assert model.residues.encode("[Acetyl]-AC[Carbamidomethyl]IY") == [26, 2, 4, 11, 24]
    np.testing.assert_allclose(
        list(model.residues.masses.values()), [*STANDARD.values()], atol=1e-6
    )


def test_sizes_and_settings(model: CasanovoModel) -> None:
    config = model.config
    assert (config.sizes.width, config.sizes.heads, config.sizes.feed_forward) == (24, 4, 32)
    assert (config.sizes.encoder_layers, config.sizes.decoder_layers) == (2, 2)
    assert (config.max_charge, config.min_length, config.max_length) == (4, 6, 40)
    assert (config.preprocess.min_peaks, config.preprocess.max_charge) == (20, 4)
    assert model.nar is model.hybrid is model.block is None
    assert not model.training


def test_nothing_foreign_is_imported() -> None:
    """In an interpreter of its own: the test's own packages bring some of them along."""
    code = (
        "import sys; from pathlib import Path; "
        "from seqgen_peptides.casanovo import load_casanovo; "
        f"load_casanovo(Path({str(GOLDEN)!r})); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    foreign = {"casanovo", "depthcharge", "lightning", "pytorch_lightning", "sortedcontainers"}
    loaded = set(done.stdout.split())
    assert "seqgen_peptides.casanovo" in loaded
    assert not foreign & loaded


def test_foreign_objects_are_data() -> None:
    tokenizer = read_checkpoint(GOLDEN)["hyper_parameters"]["tokenizer"]
    assert isinstance(tokenizer, Stub)
    assert repr(tokenizer) == "<depthcharge.tokenizers.peptides.PeptideTokenizer>"
    assert tokenizer.state["reverse"] is True
    assert tokenizer.state["index"].args[1]["$"] == STOP


def test_the_shared_checkpoint(shared_data: Path) -> None:
    loaded = load_casanovo(shared_data / "peptides" / "casanovo_tiny_random.ckpt")
    assert sum(p.numel() for p in loaded.parameters()) == 1_429_405
    assert loaded.residues.tokens == tuple(STANDARD)


# --- checkpoints that do not fit ---


class PeptideTokenizer:
    """Stands for depthcharge's class, so that a checkpoint can be written here."""


PeptideTokenizer.__module__ = "depthcharge.tokenizers.peptides"
Content = dict[str, Any]


@pytest.fixture
def rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """The golden checkpoint, changed by a function and written again as torch.save does."""
    module = types.ModuleType("depthcharge.tokenizers.peptides")
    module.PeptideTokenizer = PeptideTokenizer  # type: ignore[attr-defined]
    for name in ("depthcharge", "depthcharge.tokenizers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def write(change: Callable[[Content], object]) -> Path:
        content = read_checkpoint(GOLDEN)
        tokenizer = PeptideTokenizer()
        state = dict(content["hyper_parameters"]["tokenizer"].state)
        state["index"] = state["index"].args[1]
        vars(tokenizer).update(state)
        content["hyper_parameters"]["tokenizer"] = tokenizer
        change(content)
        torch.save(content, tmp_path / "changed.ckpt")
        return tmp_path / "changed.ckpt"

    return write


def test_a_rewritten_checkpoint_loads(rewritten: Callable[..., Path], model: CasanovoModel) -> None:
    """Numpy numbers, paths and half precision are no obstacle."""

    def change(content: Content) -> None:
        settings = content["hyper_parameters"]
        settings["tokenizer"].residues = {
            token: np.float64(mass) for token, mass in settings["tokenizer"].residues.items()
        }
        settings["out_writer"] = Path("somewhere")
        state = content["state_dict"]
        content["state_dict"] = {name: value.half() for name, value in state.items()}

    loaded = load_casanovo(rewritten(change))
    assert loaded.residues.masses == model.residues.masses
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        np.testing.assert_allclose(value, model.state_dict()[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("state_dict"), "no hyper_parameters and state_dict"),
        (lambda c: c.pop("hyper_parameters"), "no hyper_parameters and state_dict"),
        (lambda c: c["hyper_parameters"].pop("tokenizer"), "hold no tokenizer"),
        (lambda c: c["state_dict"].pop("decoder.token_encoder.weight"), "state_dict lacks"),
        (
            lambda c: c["state_dict"].pop("decoder.transformer_decoder.layers.1.norm3.bias"),
            "missing: decoder.transformer_decoder.layers.1.norm3.bias",
        ),
        (
            lambda c: c["state_dict"].update({"decoder.extra": torch.zeros(1)}),
            "unexpected: decoder.extra",
        ),
        (
            lambda c: c["state_dict"].update({"decoder.final.bias": torch.zeros(3)}),
            "wrong shape: decoder.final.bias is (3,), the model has (29,)",
        ),
        (lambda c: c["hyper_parameters"].update(n_head=5), "n_head = 5 does not divide"),
        (lambda c: c["hyper_parameters"].update(n_head="8"), "n_head = '8'"),
        (lambda c: c["hyper_parameters"].update(n_head=0), "n_head = 0"),
        (lambda c: vars(tokenizer_of(c)).update(reverse=False), "from the C-terminus"),
        (lambda c: vars(tokenizer_of(c)).update(stop_int=28), "not padding and stop"),
        (lambda c: vars(tokenizer_of(c)).pop("reverse_index"), "holds no reverse_index"),
        (lambda c: tokenizer_of(c).residues.pop("K"), "'K' has no mass"),
        (lambda c: tokenizer_of(c).reverse_index.append("x9"), "'x9' has no mass"),
        (
            lambda c: (
                tokenizer_of(c).reverse_index.append("V") or tokenizer_of(c).reverse_index.pop(2)
            ),
            "'V' is there twice",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[Content], object], message: str, rewritten: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_casanovo(rewritten(change))
    assert message in str(caught.value)
    assert "changed.ckpt" in str(caught.value)


def tokenizer_of(content: Content) -> Any:
    return content["hyper_parameters"]["tokenizer"]


# --- the model as a core model ---


@pytest.fixture(scope="module")
def batch() -> SpectrumBatch:
    """Five spectra of 30 to 50 peaks."""
    random = np.random.default_rng(5)
    peaks = []
    for count in (30, 50, 41, 38, 33):
        intensity = random.uniform(0.1, 1, count).astype(np.float32)
        peaks.append((np.sort(random.uniform(60, 1500, count)), intensity / 5))
    return SpectrumBatch.of(peaks, [432.1, 501.7, 650.0, 388.8, 777.4], [2, 3, 1, 4, 2])


def row_of(batch: SpectrumBatch, row: int) -> SpectrumBatch:
    """A spectrum alone, without the padding of the others."""
    count = int(batch.valid_BP[row].sum())
    one = {name: value[row : row + 1] for name, value in vars(batch).items()}
    return SpectrumBatch(
        **{name: value[:, :count] if value.dim() == 2 else value for name, value in one.items()}
    )


def new_canvas(rows: int, slots: int = 12) -> Canvas:
    return Canvas.tokens([[]] * rows, new=slots)


@pytest.mark.parametrize(
    "decoder",
    [
        Autoregressive(stop_ids=(STOP,)),
        Beam(beams=3, stop_ids=(STOP,)),
        Beam(beams=4, stop_ids=(STOP,), constraint=Automaton.banning([PAD], vocabulary=29)),
    ],
)
def test_cached_equals_uncached_and_rows_do_not_depend_on_each_other(
    decoder: Any, model: CasanovoModel, batch: SpectrumBatch
) -> None:
    rows = len(batch.charge_B)
    done = decoder.generate(model.ar, new_canvas(rows), model.listen(batch))
    plain = copy.copy(decoder)
    object.__setattr__(plain, "cached", False)
    again = plain.generate(model.ar, new_canvas(rows), model.listen(batch))
    assert torch.equal(done.values, again.values)
    torch.testing.assert_close(done.confidence_BS, again.confidence_BS, atol=1e-5, rtol=0)
    for row in range(rows):
        alone = decoder.generate(model.ar, new_canvas(1), model.listen(row_of(batch, row)))
        assert torch.equal(alone.values[0], done.values[row])
        assert int(alone.length_B[0]) == int(done.length_B[row])
        torch.testing.assert_close(
            alone.confidence_BS[0], done.confidence_BS[row], atol=1e-5, rtol=0
        )


def test_one_pass_gives_the_confidences_of_decoding(
    model: CasanovoModel, batch: SpectrumBatch
) -> None:
    """Teacher forcing through `embed`, as training and verification use it."""
    context = model.listen(batch)
    done = Autoregressive().generate(model.ar, new_canvas(5), context)
    before = torch.cat([torch.zeros_like(done.values[:, :1]), done.values[:, :-1]], dim=1)
    slots = torch.arange(12)[None]
    table = Raster().table(12, torch.device("cpu"))
    view = MaskView(model.ar.mask, table.info(slots), table.info(slots))
    with torch.inference_mode():
        x = model.ar.inputs.embed(before, context)  # type: ignore[attr-defined]
        hidden = model.ar.backbone(
            x, table.coordinates_SA[slots], view=view, cache=None, context=context
        )
        found = model.ar.head.logits(hidden).softmax(-1)  # type: ignore[attr-defined]
    confidence = found.gather(-1, done.values[..., None]).squeeze(-1)
    torch.testing.assert_close(confidence, done.confidence_BS, atol=1e-5, rtol=0)


def test_one_beam_is_greedy(model: CasanovoModel, batch: SpectrumBatch) -> None:
    context = model.listen(batch)
    one = Beam(beams=1, stop_ids=(STOP,)).generate(model.ar, new_canvas(5), context)
    greedy = Autoregressive(stop_ids=(STOP,)).generate(model.ar, new_canvas(5), context)
    assert one.sequences() == greedy.sequences()


def test_every_input_matters(model: CasanovoModel, batch: SpectrumBatch) -> None:
    """Peaks, intensities, precursor mass and charge each change the first residue's logits."""

    slots = torch.zeros(1, 1, dtype=torch.int64)
    table = Raster().table(1, torch.device("cpu"))

    def first(changed: SpectrumBatch) -> torch.Tensor:
        with torch.inference_mode():
            context = model.listen(changed)
            return model.ar.hidden(new_canvas(5, 1), table, slots, context=context)

    plain = first(batch)
    for change in (
        {"mz_BP": batch.mz_BP + 0.01},
        {"intensity_BP": batch.intensity_BP * 0.5},
        {"precursor_mz_B": batch.precursor_mz_B + 0.01},
        {"charge_B": batch.charge_B % 4 + 1},
    ):
        assert not torch.allclose(
            first(SpectrumBatch(**{**vars(batch), **change})), plain, atol=1e-3
        )


def test_gradients_flow_and_do_not_change_the_numbers(
    model: CasanovoModel, batch: SpectrumBatch
) -> None:
    states = model.listen(batch).states_BTD
    with torch.inference_mode():
        torch.testing.assert_close(model.listen(batch).states_BTD, states, atol=1e-5, rtol=0)
    loss = teacher_forcing(
        copy.deepcopy(model).ar, torch.full((5, 4), 3), context=model.listen(batch)
    )
    weight = model.encoder.peak_encoder.combiner.weight
    (gradient,) = torch.autograd.grad(loss, weight)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_the_command_runs_it(seqgen: Any) -> None:
    run = ("run", "--plugin", "peptides", "--model", GOLDEN, "--limit", 3, "--decoder")
    done = seqgen(*run, "beam")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert len(rows) == 3
    assert all(row["decoder"] == "beam" for row in rows)
    answered = [row for row in rows if row["status"] == "ok"]
    assert answered, done.err
    assert all(abs(row["precursor_error_ppm"]) <= 20 for row in answered)
    refused = seqgen(*run, "nar")
    assert refused.code == 2
    assert "autoregressive" in refused.err


@pytest.mark.gpu
def test_cuda_gives_the_same(model: CasanovoModel, batch: SpectrumBatch) -> None:
    device = torch.device("cuda")
    there = copy.deepcopy(model).to(device)
    search = Beam(beams=4, stop_ids=(STOP,))
    here = search.generate(model.ar, new_canvas(5), model.listen(batch))
    canvas = Canvas.tokens([[]] * 5, new=12, device=device)
    done = search.generate(there.ar, canvas, there.listen(batch.to(device)))
    assert done.sequences() == here.sequences()
    torch.testing.assert_close(done.confidence_BS.cpu(), here.confidence_BS, atol=1e-4, rtol=0)
