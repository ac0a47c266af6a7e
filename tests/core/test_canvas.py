"""What a canvas refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from seqgen.canvas import Canvas


@pytest.mark.parametrize(
    "make",
    [
        lambda: Canvas(torch.zeros(0, 4, dtype=torch.int64)),
        lambda: Canvas.tokens([], new=3),
        lambda: Canvas.vectors([], new=3),
    ],
)
def test_a_batch_without_rows_is_refused(make: Callable[[], Canvas]) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        make()
