"""The streaming mode as a decoder of the core: one event a window of 600 ms that gave tokens.

Audio is pushed chunk by chunk through `ParaformerStream`; the tokens of a window take the next
slots of the canvas. Rows are streams of their own and run one after another.

Shapes: B rows, Q tokens of a window, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders.base import StreamDecoder
from seqgen.events import Event
from seqgen.model import Context, SequenceModel
from seqgen_speech.features import FrontEnd
from seqgen_speech.paraformer import Paraformer
from seqgen_speech.streaming import ParaformerStream, StreamingConfig

PUSH_SAMPLES = 9600
"""Samples handed over at a time (600 ms); the tokens do not depend on it."""


@dataclass(frozen=True)
class StreamingDecoder(StreamDecoder):
    """Decode waveforms as they would arrive.

    Attributes:
        paraformer, front_end: the recogniser's parts.
        waves: samples [S] of each row.
        config: sizes of chunks and look-backs.
        fired: filled while decoding: the low-rate frame in which each token of a row fired.
    """

    paraformer: Paraformer
    front_end: FrontEnd
    waves: list[Tensor]
    config: StreamingConfig = field(default_factory=StreamingConfig)
    fired: list[list[int]] = field(default_factory=list)

    def stream(
        self, model: SequenceModel, canvas: Canvas, context: Context | None = None
    ) -> Iterator[Event]:
        """Tokens of one row after another, an event a window that gave any."""
        forward = 0
        lengths = torch.zeros_like(canvas.length_B)
        for row, wave in enumerate(self.waves):
            stream = ParaformerStream(self.paraformer, self.front_end, self.config)
            self.fired.append([])
            pushes = [wave[i : i + PUSH_SAMPLES] for i in range(0, len(wave), PUSH_SAMPLES)]
            for number in range(len(pushes) + 1):
                found = stream.push(pushes[number]) if number < len(pushes) else stream.finish()
                count = len(found.ids_N)
                if count == 0:
                    continue
                start = int(lengths[row])
                lengths[row] += count
                self.fired[row] += found.frames_N.tolist()
                slots_1Q = torch.arange(start, start + count, device=canvas.device)[None]
                keep = torch.zeros(canvas.batch, count, dtype=torch.bool, device=canvas.device)
                keep[row] = True
                values = found.ids_N.expand(canvas.batch, -1)
                confidence = found.confidences_N.expand(canvas.batch, -1)
                canvas.commit(slots_1Q, values, confidence, keep)
                yield Event(
                    forward=forward,
                    step=number,
                    refinement=0,
                    slots_BQ=slots_1Q,
                    values=values,
                    confidence_BQ=confidence,
                    kept_BQ=keep,
                )
                forward += 1
        canvas.length_B = lengths
