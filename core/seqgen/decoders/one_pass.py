"""One pass over the whole canvas, then a finalizer: CTC, or an exact program over the logits.

PrimeNovo (Zhang et al. 2025, doi:10.1038/s41467-024-55021-3) decodes peptides so: a fixed number of
slots, CTC, and a program over the precursor mass.

Shapes: B rows, S slots, D width, N hypotheses.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from seqgen.canvas import COMMITTED, OPEN, Canvas
from seqgen.decoders.base import StreamDecoder
from seqgen.events import Event
from seqgen.finalizers import Finalizer
from seqgen.heads.base import Request
from seqgen.hypotheses import Hypotheses
from seqgen.inputs import RasterInputs
from seqgen.logits import GREEDY, NEVER, Sampling
from seqgen.model import Context, SequenceModel
from seqgen.orders import Whole


@dataclass(frozen=True, kw_only=True)
class OnePass(StreamDecoder):
    """Decode all slots in one pass and let a finalizer find the sequence.

    The canvas has no prompt, and a slot for everything the model may say, blanks included; in the
    end a row's length is its sequence's. A row for which the finalizer finds nothing is empty and
    not finished.

    Attributes:
        finalizer: `GreedyCTC`, `PrefixBeamCTC`, or a domain's own, made for this batch.
        sampling: its constraints change the logits that the finalizer sees (`Ban`, say).
    """

    finalizer: Finalizer
    sampling: Sampling = GREEDY

    @torch.inference_mode()
    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Generator[Event, None, Hypotheses]:
        """Decode `canvas` in place, yielding one event; returns the finalizer's hypotheses."""
        if canvas.max_prompt > 0 or canvas.has_given:
            raise ValueError("OnePass decides every value: it takes no prompt and no known slots")
        hidden_BSD = whole_pass(model, canvas, context)
        slots_1S = torch.arange(canvas.slots, device=canvas.device)[None]
        request = Request(canvas, slots_1S, self.sampling, 0)
        logits_BSV = model.head.propose(hidden_BSD, request).logits_BQV
        if logits_BSV is None:
            raise ValueError("a finalizer needs a head with logits")
        hypotheses = self.finalizer(logits_BSV, None if canvas.uniform_length else canvas.limit_B)
        yield _write_best(canvas, hypotheses)
        return hypotheses


def whole_pass(model: SequenceModel, canvas: Canvas, context: Context | None) -> Tensor:
    """Last hidden states [B, S, D] of all slots in one pass; also with gradients, for training.

    Committed slots enter with their values, open ones as the model's inputs have it. The canvas is
    left as it is.
    """
    if isinstance(model.inputs, RasterInputs):
        raise ValueError("one pass over all slots needs inputs other than the value before")
    slots_1S = torch.arange(canvas.slots, device=canvas.device)[None]
    return model.hidden(
        canvas,
        Whole().table(canvas.slots, canvas.device),
        slots_1S,
        valid_BR=None if canvas.uniform_length else slots_1S < canvas.limit_B[:, None],
        alone=True,
        context=context,
    )


def _write_best(canvas: Canvas, hypotheses: Hypotheses) -> Event:
    """Put the best hypothesis of every row into the canvas."""
    values_BS, confidence_BS = hypotheses.values_BNS[:, 0], hypotheses.confidence_BNS[:, 0]
    width = values_BS.shape[1]
    slots_1S = torch.arange(width, device=canvas.device)[None]
    canvas.finished_B |= hypotheses.finished_BN[:, 0]
    canvas.length_B = torch.where(hypotheses.score_BN[:, 0] > NEVER, hypotheses.length_BN[:, 0], 0)
    kept_BS = slots_1S < canvas.length_B[:, None]
    canvas.values[:, :width] = values_BS * kept_BS
    canvas.state_BS[:, :width] = torch.where(kept_BS, COMMITTED, OPEN).to(torch.uint8)
    canvas.confidence_BS[:, :width] = confidence_BS * kept_BS
    return Event(
        forward=0,
        step=0,
        refinement=0,
        slots_BQ=slots_1S,
        values=values_BS,
        confidence_BQ=confidence_BS,
        kept_BQ=kept_BS,
    )
