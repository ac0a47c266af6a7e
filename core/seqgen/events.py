"""Typed events of a decode: what was proposed and kept, with which confidence, in which pass.

Progress bars, streaming output, `--trace` files and replays all read these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(slots=True)  # not frozen: one is made in every pass, in a third of the time
class Event:
    """One forward pass. Shapes: B rows, Q slots.

    Attributes:
        forward: number of the pass, from 0.
        step: number of the group being decided.
        refinement: number of the pass within the group.
        slots_BQ: slots the pass proposed values for; [1, Q] if the same in all rows.
        values: proposed ids [B, Q] or vectors [B, Q, C].
        confidence_BQ: their confidences.
        kept_BQ: which of them were committed.
        rolled_back_BQ: slots opened again; None if none.
        draft_forwards: passes of a draft model that led to this one.
    """

    forward: int
    step: int
    refinement: int
    slots_BQ: Tensor
    values: Tensor
    confidence_BQ: Tensor
    kept_BQ: Tensor
    rolled_back_BQ: Tensor | None = None
    draft_forwards: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain lists, one entry a row, only slots that were open."""
        batch = self.values.shape[0]
        slots = self.slots_BQ.expand(batch, -1)
        return {
            "forward": self.forward,
            "step": self.step,
            "refinement": self.refinement,
            "slots": slots.tolist(),
            "values": self.values.tolist(),
            "confidence": [[round(c, 4) for c in row] for row in self.confidence_BQ.tolist()],
            "kept": self.kept_BQ.tolist(),
            "rolled_back": None if self.rolled_back_BQ is None else self.rolled_back_BQ.tolist(),
            "draft_forwards": self.draft_forwards,
        }
