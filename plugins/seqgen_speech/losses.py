"""Paraformer's training objective: glancing sampler, cross-entropy, length error, CTC, MWER.

Gao et al., "Paraformer" (arXiv:2206.08317), section 2. Pass 1 decodes the acoustic embeddings
without gradient; for a share of its errors the target's own embedding is put in (glancing language
model); pass 2 decodes that mixture and is trained. `mwer_loss` is the paper's second stage.

Shape suffixes: B batch, T frames, N tokens, D width, V vocabulary, F feature width,
H hypotheses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen.errors import ConfigError
from seqgen_speech.cif import CifOutput
from seqgen_speech.paraformer import Paraformer


@dataclass(frozen=True, kw_only=True)
class ParaformerLossConfig:
    """Weights of the objective.

    Attributes:
        sampling_ratio: targets shown in pass 2, as a share of pass 1's errors.
        label_smoothing: probability spread over the wrong tokens.
        predictor_weight: weight of the length error.
        ctc_weight: share of CTC in the token loss, 0 to 1; needs a model with a CTC head.
        length_normalised: divide by the number of tokens, not by the number of rows.
        hypotheses: `mwer_loss`: sampled hypotheses a row, the best one included.
        mask_ratio: `mwer_loss`: share of tokens that a sampled hypothesis gets wrong.
        mwer_weight: `mwer_loss`: weight of the expected error beside the other losses.
    """

    sampling_ratio: float = 0.75
    label_smoothing: float = 0.1
    predictor_weight: float = 1.0
    ctc_weight: float = 0.0
    length_normalised: bool = True
    hypotheses: int = 4
    mask_ratio: float = 0.15
    mwer_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("sampling_ratio", "label_smoothing", "ctc_weight", "mask_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        if self.hypotheses < 2:
            raise ConfigError(f"hypotheses must be at least 2, got {self.hypotheses}")


def paraformer_loss(
    model: Paraformer,
    features_BTF: Tensor,
    feature_lengths_B: Tensor,
    targets_BN: Tensor,
    target_lengths_B: Tensor,
    generator: torch.Generator | None,
    config: ParaformerLossConfig,
    *,
    states_BTD: Tensor | None = None,
) -> dict[str, Tensor]:
    """The first training stage.

    Args:
        model: in training mode, or in eval mode for a validation loss.
        features_BTF: normalised features; `feature_lengths_B` valid frames.
        targets_BN: token ids without the end token (it is appended where the model emits it);
            entries beyond `target_lengths_B` are ignored.
        generator: draws the glancing positions.
        states_BTD: the encoder's states, where the caller has them already.

    Returns:
        `loss` (to minimise) and its parts `cross_entropy`, `length`, `ctc` if trained; also
        `accuracy` of pass 1 (what inference would give) and `tokens`. All but `loss` detached.

    Raises:
        ConfigError: a CTC weight without a CTC head.
    """
    h_BTD = model.encode(features_BTF, feature_lengths_B) if states_BTD is None else states_BTD
    ids_BN, lengths_B = append_end(model, targets_BN, target_lengths_B)
    cif = model.predict(h_BTD, feature_lengths_B, lengths_B)
    logits_BNV = None
    if config.sampling_ratio > 0:
        with torch.no_grad():
            logits_BNV = model.decode(cif.embeddings_BND, lengths_B, h_BTD, feature_lengths_B)
    parts = _stage_one(
        model, h_BTD, feature_lengths_B, cif, ids_BN, lengths_B, logits_BNV, generator, config
    )
    return _finish(parts)


def mwer_loss(
    model: Paraformer,
    features_BTF: Tensor,
    feature_lengths_B: Tensor,
    targets_BN: Tensor,
    target_lengths_B: Tensor,
    generator: torch.Generator | None,
    config: ParaformerLossConfig,
    *,
    states_BTD: Tensor | None = None,
) -> dict[str, Tensor]:
    """The second stage: `paraformer_loss` plus the expected number of token errors.

    Arguments as there. Hypotheses are the best path of pass 1 and variations of it in which random
    tokens are replaced by the next best one (the paper's negative sampling); with P their
    probabilities, renormalised, and W their edit distances,
    mwer = sum_i P_i (W_i - mean W). Adds `mwer` and `errors` (mean W of the best path).
    """
    h_BTD = model.encode(features_BTF, feature_lengths_B) if states_BTD is None else states_BTD
    ids_BN, lengths_B = append_end(model, targets_BN, target_lengths_B)
    cif = model.predict(h_BTD, feature_lengths_B, lengths_B)
    logits_BNV = model.decode(cif.embeddings_BND, lengths_B, h_BTD, feature_lengths_B)
    parts = _stage_one(
        model, h_BTD, feature_lengths_B, cif, ids_BN, lengths_B, logits_BNV, generator, config
    )
    expected, best = expected_errors(
        logits_BNV.float().log_softmax(-1),
        ids_BN,
        lengths_B,
        hypotheses=config.hypotheses,
        mask_ratio=config.mask_ratio,
        generator=generator,
    )
    parts["loss"] = parts["loss"] + config.mwer_weight * expected
    return _finish({**parts, "mwer": expected, "errors": best})


def _stage_one(
    model: Paraformer,
    h_BTD: Tensor,
    feature_lengths_B: Tensor,
    cif: CifOutput,
    ids_BN: Tensor,
    lengths_B: Tensor,
    logits_BNV: Tensor | None,
    generator: torch.Generator | None,
    config: ParaformerLossConfig,
) -> dict[str, Tensor]:
    """Pass 2 and the length error, given pass 1's logits (None: there is no pass 1)."""
    valid_BN = torch.arange(ids_BN.shape[1], device=ids_BN.device) < lengths_B[:, None]
    tokens = lengths_B.sum()
    embeddings_BND = cif.embeddings_BND
    if logits_BNV is not None:
        shown_BN = glancing_positions(
            logits_BNV.argmax(-1), ids_BN, valid_BN, config.sampling_ratio, generator
        )
        known_BND = model.decoder.embed_tokens(ids_BN)
        embeddings_BND = torch.where(shown_BN[..., None], known_BND, embeddings_BND)
    trained_BNV = model.decode(embeddings_BND, lengths_B, h_BTD, feature_lengths_B)
    scored_BNV = trained_BNV if logits_BNV is None else logits_BNV
    hits = ((scored_BNV.detach().argmax(-1) == ids_BN) & valid_BN).sum()

    denominator = tokens if config.length_normalised else torch.tensor(len(lengths_B))
    cross_entropy = smoothed_kl(trained_BNV, ids_BN, valid_BN, config.label_smoothing) / denominator
    length = (cif.mass_B - lengths_B).abs().sum() / denominator
    parts = {
        "cross_entropy": cross_entropy,
        "length": length,
        "accuracy": hits / tokens.clamp_min(1),
        "tokens": tokens,
    }
    token_loss = cross_entropy
    if config.ctc_weight > 0:
        bias = model.config.predictor_bias
        parts["ctc"] = ctc_loss(model, h_BTD, feature_lengths_B, ids_BN, lengths_B - bias)
        token_loss = (1 - config.ctc_weight) * cross_entropy + config.ctc_weight * parts["ctc"]
    return {"loss": token_loss + config.predictor_weight * length, **parts}


def append_end(
    model: Paraformer, targets_BN: Tensor, target_lengths_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Targets cut to the longest row, padding made 0, the end token appended where the model
    emits it; and their lengths."""
    size = int(target_lengths_B.max())
    targets_BN = targets_BN[:, :size]
    valid_BN = torch.arange(size, device=targets_BN.device) < target_lengths_B[:, None]
    ids_BN = targets_BN.masked_fill(~valid_BN, 0)
    if model.config.predictor_bias == 0:
        return ids_BN, target_lengths_B
    ids_BN = F.pad(ids_BN, (0, 1))
    end_B1 = torch.full_like(ids_BN[:, :1], model.config.end_id)
    return ids_BN.scatter(1, target_lengths_B[:, None].long(), end_B1), target_lengths_B + 1


def glancing_positions(
    guesses_BN: Tensor,
    targets_BN: Tensor,
    valid_BN: Tensor,
    ratio: float,
    generator: torch.Generator | None,
) -> Tensor:
    """True at floor(ratio * errors) random valid positions of each row, right or wrong ones."""
    errors_B = ((guesses_BN != targets_BN) & valid_BN).sum(1)
    shown_B = (errors_B.to(torch.float32) * ratio).long()
    noise_BN = _noise(targets_BN.shape, generator, targets_BN.device)
    rank_BN = noise_BN.masked_fill(~valid_BN, 2.0).argsort(1).argsort(1)
    return rank_BN < shown_B[:, None]


def smoothed_kl(
    logits_BNV: Tensor, targets_BN: Tensor, valid_BN: Tensor, smoothing: float
) -> Tensor:
    """Sum over valid tokens of KL(q || softmax), q = 1 - e on the target, e / (V - 1) elsewhere."""
    log_probs_BNV = logits_BNV.float().log_softmax(-1)
    right_BN = log_probs_BNV.gather(-1, targets_BN[..., None]).squeeze(-1)
    others = logits_BNV.shape[-1] - 1
    spread = smoothing / others
    wrong_BN = log_probs_BNV.sum(-1) - right_BN
    entropy = _x_log_x(1 - smoothing) + others * _x_log_x(spread)
    kl_BN = entropy - (1 - smoothing) * right_BN - spread * wrong_BN
    return kl_BN.masked_fill(~valid_BN, 0.0).sum()


def ctc_loss(
    model: Paraformer,
    h_BTD: Tensor,
    lengths_B: Tensor,
    targets_BN: Tensor,
    target_lengths_B: Tensor,
) -> Tensor:
    """Mean over rows of the CTC loss; rows too short for their targets count as 0.

    Raises:
        ConfigError: the model has no CTC head.
    """
    if model.ctc is None:
        raise ConfigError(
            "a CTC weight needs a model with a CTC head", fix="build it with ctc=True"
        )
    log_probs_TBV = model.ctc(h_BTD).float().log_softmax(-1).transpose(0, 1)
    losses_B = F.ctc_loss(
        log_probs_TBV,
        targets_BN,
        lengths_B,
        target_lengths_B,
        blank=model.config.blank_id,
        reduction="none",
        zero_infinity=True,
    )
    return losses_B.mean()


def expected_errors(
    log_probs_BNV: Tensor,
    targets_BN: Tensor,
    lengths_B: Tensor,
    *,
    hypotheses: int,
    mask_ratio: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """(expected errors minus their mean, errors of the best path), both averaged over rows."""
    batch, size, _ = log_probs_BNV.shape
    device = log_probs_BNV.device
    valid_BN = torch.arange(size, device=device) < lengths_B[:, None]
    best_BN2, ids_BN2 = log_probs_BNV.topk(2, dim=-1)
    noise_BHN = _noise((batch, hypotheses, size), generator, device)
    # Every variation is wrong somewhere (else it would be the best path again): its lowest noise.
    noise_BHN = noise_BHN.masked_fill(~valid_BN[:, None], 2.0)
    lowest_BH1 = noise_BHN.amin(-1, keepdim=True)
    swap_BHN = (noise_BHN < mask_ratio) | (noise_BHN == lowest_BH1)
    swap_BHN[:, 0] = False
    swap_BHN &= valid_BN[:, None]

    ids_BHN = torch.where(swap_BHN, ids_BN2[:, None, :, 1], ids_BN2[:, None, :, 0])
    scores_BHN = torch.where(swap_BHN, best_BN2[:, None, :, 1], best_BN2[:, None, :, 0])
    share_BH = scores_BHN.masked_fill(~valid_BN[:, None], 0.0).sum(-1).softmax(-1)
    lengths_P = lengths_B.repeat_interleave(hypotheses)
    errors_BH = edit_distance(
        ids_BHN.flatten(0, 1), lengths_P, targets_BN.repeat_interleave(hypotheses, 0), lengths_P
    ).view(batch, hypotheses)
    excess_BH = errors_BH - errors_BH.mean(-1, keepdim=True)
    return (share_BH * excess_BH).sum(-1).mean(), errors_BH[:, 0].mean()


def edit_distance(
    guesses_PN: Tensor, guess_lengths_P: Tensor, targets_PM: Tensor, target_lengths_P: Tensor
) -> Tensor:
    """Levenshtein distance of P pairs of id sequences, float32 [P]."""
    pairs, size = targets_PM.shape
    column = torch.arange(size + 1, device=targets_PM.device, dtype=torch.float32)
    row = column.expand(pairs, -1)
    out_P = row.gather(1, target_lengths_P[:, None].long()).squeeze(1)
    for i in range(guesses_PN.shape[1]):
        differs = (targets_PM != guesses_PN[:, i : i + 1]).float()
        best = torch.minimum(row[:, 1:] + 1, row[:, :-1] + differs)
        best = torch.cat([row[:, :1] + 1, best], dim=1)
        # Insertions along the row: min over j' <= j of best[j'] + (j - j').
        row = (best - column).cummin(1).values + column
        here_P = row.gather(1, target_lengths_P[:, None].long()).squeeze(1)
        out_P = torch.where(guess_lengths_P == i + 1, here_P, out_P)
    return out_P


def _noise(shape: Sequence[int], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Uniform noise drawn where the generator lives: the same on every device."""
    source = torch.device("cpu") if generator is None else generator.device
    return torch.rand(tuple(shape), generator=generator, device=source).to(device)


def _x_log_x(x: float) -> float:
    return x * math.log(x) if x > 0 else 0.0


def _finish(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: part if name == "loss" else part.detach() for name, part in parts.items()}
