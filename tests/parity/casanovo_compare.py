"""Our side of the comparison with Casanovo: what casanovo_reference.py recorded, and our answers.

Shapes: B spectra, S slots, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, Beam
from seqgen.orders import Raster
from seqgen_peptides.casanovo import CasanovoContext, CasanovoModel
from seqgen_peptides.residues import PAD, STOP
from seqgen_peptides.spectra import SpectrumBatch

Answers = list[tuple[str, float, list[float]]]
"""Peptide, score and residue scores from the N-terminus; the best first."""


@dataclass(frozen=True)
class Recorded:
    """What the reference wrote: arrays by name, and answers by the way they were searched."""

    arrays: Mapping[str, NDArray[Any]]
    said: Mapping[str, list[Answers]]

    @classmethod
    def of(cls, folder: Path) -> Recorded:
        with np.load(folder / "ref.npz") as file:
            arrays = dict(file)
        said = folder / "ref.json"
        return cls(arrays, json.loads(said.read_text()) if said.exists() else {})

    def batch(self, count: int | None = None) -> SpectrumBatch:
        """The first `count` spectra (all if None) as Casanovo preprocessed them."""
        part = {name: torch.from_numpy(array[:count]) for name, array in self.arrays.items()}
        return SpectrumBatch(
            mz_BP=part["mz"].double(),
            intensity_BP=part["intensity"],
            valid_BP=part["mz"] > 0,
            precursor_mz_B=part["precursor_mz"].double(),
            charge_B=part["charge"].long(),
        )


def check_tensors(model: CasanovoModel, recorded: Recorded, *, tolerance: float) -> None:
    """Encoder states, and teacher-forced logits of every residue and the stop."""
    with torch.inference_mode():
        context = model.listen(recorded.batch())
        tokens_BS = torch.from_numpy(recorded.arrays["tokens"]).long()
        logits_BSV = teacher_forced(model, context, tokens_BS)
    assert context.states_BTD is not None
    assert context.valid_BT is not None
    states = torch.where(context.valid_BT[..., None], context.states_BTD, 0.0)
    np.testing.assert_allclose(states, recorded.arrays["states"], atol=tolerance, rtol=0)
    used = (tokens_BS != PAD).numpy()
    expected = recorded.arrays["logits"][used]
    np.testing.assert_allclose(logits_BSV.numpy()[used], expected, atol=tolerance, rtol=0)


def teacher_forced(model: CasanovoModel, context: CasanovoContext, tokens_BS: Tensor) -> Tensor:
    """Logits [B, S, V] of every slot, all of them given."""
    slots_1S = torch.arange(tokens_BS.shape[1])[None]
    table = Raster().table(tokens_BS.shape[1], tokens_BS.device)
    hidden = model.ar.hidden(Canvas(tokens_BS), table, slots_1S, context=context)
    return model.ar.head.logits(hidden)  # type: ignore[attr-defined]


def check_greedy(model: CasanovoModel, recorded: Recorded, *, tolerance: float) -> int:
    """The same peptides with the same scores, and none where Casanovo has none; returns how many.

    Casanovo drops answers that have not stopped in time, that are short, or that hold an N-terminal
    modification elsewhere than at their end.
    """
    context = model.listen(recorded.batch())
    canvas = new_canvas(len(recorded.arrays["mz"]))
    done = Autoregressive(stop_ids=(STOP,)).generate(model.ar, canvas, context)
    answered = 0
    for row, expected in enumerate(recorded.said["greedy"]):
        ids = done.values[row, : int(done.length_B[row])].tolist()
        if not (bool(done.finished_B[row]) and is_peptide(model, ids)):
            assert expected == [], f"spectrum {row}: {expected}, ours {ids}"
            continue
        confidence = done.confidence_BS[row, : len(ids)].double().numpy()
        answered += 1
        _check_answer(model, ids, confidence, expected[0], tolerance)
    return answered


def check_search(model: CasanovoModel, recorded: Recorded, *, tolerance: float) -> int:
    """The same n best answers of 5 beams, without Casanovo's rules; returns how many."""
    expected = recorded.said["search"]
    compared = 0
    for row, found in enumerate(beam_answers(model, recorded)):
        found = [(ids, confidence) for ids, confidence in found if len(ids) > 1]
        assert len(found[:5]) == len(expected[row]), f"spectrum {row}"
        for (ids, confidence), wanted in zip(found[:5], expected[row], strict=True):
            _check_answer(model, ids, confidence, wanted, tolerance)
            compared += 1
    return compared


def same_best(model: CasanovoModel, recorded: Recorded) -> tuple[int, int]:
    """How many best answers of 5 beams are the same under Casanovo's rules, and of how many.

    Casanovo drops hypotheses that break its rules while it searches, we drop answers at the end; so
    the places that it refills hold other hypotheses.
    """
    same = 0
    for found, expected in zip(beam_answers(model, recorded), recorded.said["beams"], strict=True):
        ours = [model.residues.decode(ids[::-1]) for ids, _ in found if is_peptide(model, ids)]
        same += ours[:1] == [peptide for peptide, _, _ in expected[:1]]
    return same, len(recorded.said["beams"])


def beam_answers(
    model: CasanovoModel, recorded: Recorded
) -> list[list[tuple[list[int], NDArray[Any]]]]:
    """Ids (with the stop) and confidences of what has stopped, best first, a list a spectrum."""
    count = len(recorded.said["search"])
    # An empty peptide, which Casanovo drops, may be among the answers: keep more than 5.
    search = Beam(beams=5, keep=8, stop_ids=(STOP,), score="mean-logit", refill=False)
    found = search.generate(
        model.ar, new_canvas(count), model.listen(recorded.batch(count))
    ).hypotheses
    assert found is not None
    return [
        [
            (ids, found.confidence_BNS[row, place, : len(ids)].double().numpy())
            for place, ids in enumerate(found.sequences(row))
            if found.finished_BN[row, place]
        ]
        for row in range(count)
    ]


def is_peptide(model: CasanovoModel, ids: list[int]) -> bool:
    """Casanovo's rules for an answer, ids from the C-terminus."""
    ends = model.residues.n_terminal()
    body = [i for i in ids if i != STOP]
    return len(body) >= model.config.min_length and not any(ends[i] for i in body[:-1])


def new_canvas(rows: int) -> Canvas:
    return Canvas.tokens([[]] * rows, new=40)


def _check_answer(
    model: CasanovoModel,
    ids: list[int],
    confidence: NDArray[Any],
    expected: tuple[str, float, list[float]],
    tolerance: float,
) -> None:
    peptide, score, residue_scores = expected
    assert model.residues.decode(ids[::-1]) == peptide
    np.testing.assert_allclose(confidence.prod(), score, atol=tolerance, rtol=0)
    np.testing.assert_allclose(confidence[:-1][::-1], residue_scores, atol=tolerance, rtol=0)
