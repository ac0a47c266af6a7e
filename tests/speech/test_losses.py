"""The training objective: every part against its definition, and a model that learns."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgen.errors import ConfigError
from seqgen_speech.losses import (
    ParaformerLossConfig,
    append_end,
    edit_distance,
    expected_errors,
    glancing_positions,
    mwer_loss,
    paraformer_loss,
    smoothed_kl,
)
from seqgen_speech.paraformer import Paraformer, ParaformerConfig


def make_model(*, predictor_bias: int = 0, ctc: bool = False) -> Paraformer:
    torch.manual_seed(0)
    config = ParaformerConfig.small(
        vocabulary=9,
        width=16,
        heads=2,
        ffn_width=32,
        encoder_layers=2,
        decoder_layers=1,
        input_width=10,
        dropout=0.0,
        predictor_bias=predictor_bias,
        ctc=ctc,
    )
    return Paraformer(config)


def make_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    targets = torch.tensor([[3, 4, 5, 6], [7, 8, -1, -1], [4, 4, 4, -1]])
    return torch.randn(3, 24, 10), torch.tensor([24, 13, 20]), targets, torch.tensor([4, 2, 3])


def test_kl_equals_torchs() -> None:
    logits = torch.randn(2, 5, 9)
    targets = torch.randint(0, 9, (2, 5))
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    q = torch.full((2, 5, 9), 0.1 / 8).scatter(-1, targets[..., None], 0.9)
    want = F.kl_div(logits.log_softmax(-1), q, reduction="none").sum(-1)[valid].sum()
    torch.testing.assert_close(smoothed_kl(logits, targets, valid, 0.1), want)
    plain = F.cross_entropy(logits[valid], targets[valid], reduction="sum")
    torch.testing.assert_close(smoothed_kl(logits, targets, valid, 0.0), plain)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.floats(0, 1))
def test_glancing_shows_a_share_of_the_errors(seed: int, ratio: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 12, (4,), generator=generator)
    valid = torch.arange(12) < lengths[:, None]
    targets = torch.randint(0, 3, (4, 12), generator=generator)
    guesses = torch.randint(0, 3, (4, 12), generator=generator)
    shown = glancing_positions(guesses, targets, valid, ratio, generator)
    errors = ((guesses != targets) & valid).sum(1)
    assert shown.sum(1).tolist() == (errors.float() * ratio).long().tolist()
    assert not bool((shown & ~valid).any())


def test_glancing_draws_from_right_positions_too() -> None:
    generator = torch.Generator().manual_seed(0)
    guesses, targets = torch.zeros(1, 4).long(), torch.tensor([[1, 1, 0, 0]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    draws = [glancing_positions(guesses, targets, valid, 0.5, generator) for _ in range(60)]
    assert bool(torch.cat(draws).any(0).all())


def test_end_token_is_appended_where_the_model_emits_it() -> None:
    targets, lengths = torch.tensor([[3, 4], [5, -1]]), torch.tensor([2, 1])
    ids, counts = append_end(make_model(predictor_bias=1), targets, lengths)
    assert ids.tolist() == [[3, 4, 2], [5, 2, 0]]
    assert counts.tolist() == [3, 2]
    ids, counts = append_end(make_model(), targets, lengths)
    assert ids.tolist() == [[3, 4], [5, 0]]
    assert counts.tolist() == [2, 1]


@pytest.mark.parametrize("predictor_bias", [0, 1])
def test_without_glancing_the_parts_are_their_definitions(predictor_bias: int) -> None:
    model = make_model(predictor_bias=predictor_bias)
    features, lengths, targets, target_lengths = make_batch()
    config = ParaformerLossConfig(sampling_ratio=0.0, predictor_weight=0.5)
    got = paraformer_loss(model, features, lengths, targets, target_lengths, None, config)
    ids, counts = append_end(model, targets, target_lengths)
    h_BTD = model.encode(features, lengths)
    cif = model.predict(h_BTD, lengths, counts)
    logits = model.decode(cif.embeddings_BND, counts, h_BTD, lengths)
    valid = torch.arange(ids.shape[1]) < counts[:, None]
    tokens = int(counts.sum())
    cross_entropy = smoothed_kl(logits, ids, valid, 0.1) / tokens
    masses = [
        model.predictor.alphas(h_BTD[i : i + 1, :n]).sum() for i, n in enumerate(lengths.tolist())
    ]
    length = (torch.stack(masses) - counts).abs().sum() / tokens
    hits = (logits.argmax(-1) == ids)[valid].float().mean()
    torch.testing.assert_close(got["cross_entropy"], cross_entropy.detach())
    torch.testing.assert_close(got["accuracy"], hits)
    assert int(got["tokens"]) == tokens
    torch.testing.assert_close(got["length"], length.detach())
    torch.testing.assert_close(got["loss"].detach(), got["cross_entropy"] + 0.5 * got["length"])


def test_a_padded_batch_has_the_loss_of_its_rows() -> None:
    model = make_model(predictor_bias=1, ctc=True).eval()
    features, lengths, targets, target_lengths = make_batch()
    config = ParaformerLossConfig(sampling_ratio=0.0, ctc_weight=0.3, length_normalised=False)
    whole = paraformer_loss(model, features, lengths, targets, target_lengths, None, config)
    rows = [
        paraformer_loss(
            model,
            features[i : i + 1, : lengths[i]],
            lengths[i : i + 1],
            targets[i : i + 1],
            target_lengths[i : i + 1],
            None,
            config,
        )["loss"]
        for i in range(3)
    ]
    torch.testing.assert_close(whole["loss"], torch.stack(rows).mean())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=7), st.lists(st.integers(0, 3), max_size=7))
def test_edit_distance_equals_the_textbook(guess: list[int], target: list[int]) -> None:
    table = {(i, 0): i for i in range(len(guess) + 1)}
    table |= {(0, j): j for j in range(len(target) + 1)}
    for i, j in itertools.product(range(1, len(guess) + 1), range(1, len(target) + 1)):
        substituted = table[i - 1, j - 1] + (guess[i - 1] != target[j - 1])
        table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, substituted)
    padded = [torch.tensor([[*ids, 9, 9], [9] * (len(ids) + 2)]) for ids in (guess, target)]
    got = edit_distance(
        padded[0], torch.tensor([len(guess), 0]), padded[1], torch.tensor([len(target), 1])
    )
    assert got.tolist() == [table[len(guess), len(target)], 1]


def test_mwer_moves_probability_to_the_better_hypothesis() -> None:
    """Two slots; token 1 is right in both, but the model prefers token 2 in the first."""
    logits = torch.tensor([[[0.0, 1.0, 1.5], [0.0, 2.0, 0.0]]], requires_grad=True)
    targets, lengths = torch.tensor([[1, 1]]), torch.tensor([2])
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.SGD([logits], lr=1.0)
    first = None
    for _ in range(40):
        loss, errors = expected_errors(
            logits.log_softmax(-1),
            targets,
            lengths,
            hypotheses=4,
            mask_ratio=0.5,
            generator=generator,
        )
        first = errors if first is None else first
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert first is not None
    assert first.item() == 1
    assert errors.item() == 0


@pytest.mark.parametrize("objective", [paraformer_loss, mwer_loss])
@pytest.mark.parametrize(("predictor_bias", "ctc"), [(0, False), (1, True)])
def test_a_small_model_learns_its_batch(objective, predictor_bias: int, ctc: bool) -> None:
    model = make_model(predictor_bias=predictor_bias, ctc=ctc)
    batch = make_batch()
    config = ParaformerLossConfig(
        sampling_ratio=0.4, ctc_weight=0.3 if ctc else 0.0, label_smoothing=0.0, hypotheses=3
    )
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    history = []
    for _ in range(120):
        parts = objective(model, *batch, generator, config)
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()
        history.append(parts["loss"].item())
    assert history[-1] < 0.4 * history[0]
    result = model.eval().recognise(batch[0], batch[1])
    ids, counts = append_end(model, batch[2], batch[3])
    assert result.cif.counts_B.tolist() == counts.tolist()
    for row, count in enumerate(counts.tolist()):
        assert result.ids_BN[row, :count].tolist() == ids[row, :count].tolist()


def test_same_generator_same_loss() -> None:
    model, batch = make_model().eval(), make_batch()
    config = ParaformerLossConfig(sampling_ratio=0.75)
    losses = [
        paraformer_loss(model, *batch, torch.Generator().manual_seed(s), config)["loss"].item()
        for s in (1, 1)
    ]
    assert losses[0] == losses[1]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="sampling_ratio"):
        ParaformerLossConfig(sampling_ratio=1.5)
    with pytest.raises(ConfigError, match="CTC head"):
        paraformer_loss(make_model(), *make_batch(), None, ParaformerLossConfig(ctc_weight=0.3))
    with pytest.raises(ConfigError, match="widthh"):
        ParaformerConfig.from_dict({"encoder": {"widthh": 3}})
