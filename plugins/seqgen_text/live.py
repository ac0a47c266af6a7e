"""The text as it comes: shows every row's decided tokens while the decoder works on the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seqgen.canvas import Canvas
from seqgen.domain import Plan
from seqgen.events import Event
from seqgen_text.decoding import TextDecoder, decided
from seqgen_text.model import TextModel

HALF = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer gives for bytes that are no whole character yet."""


class LiveText:
    """Writes what is decided from left to right, row after row.

    The rows of a batch are decoded together; the first is shown as it grows, and when it is done
    the next one from its beginning. Each pass is read back from the device: for a person to watch.

    Args:
        model: whose tokens they are.
        write: takes pieces of text.
        title: writes a line with the row's id before each text.
    """

    def __init__(self, model: TextModel, write: Callable[[str], None], *, title: bool) -> None:
        self.model, self.write, self.title = model, write, title
        self._canvas: Canvas | None = None

    def begin(self, ids: Sequence[str], plan: Plan) -> None:
        """A batch is about to be decoded."""
        self._ids, self._canvas = list(ids), plan.canvas
        self._prompts: list[int] = plan.canvas.prompt_B.tolist()
        assert isinstance(plan.decoder, TextDecoder)
        self._ends = plan.decoder.ends
        self._held = max((len(text) - 1 for text in self._ends.texts), default=0)
        self._row = 0
        self._start_row()

    def event(self, event: Event) -> None:
        """A pass was made."""
        assert self._canvas is not None
        known_B = decided(self._canvas).tolist()
        while self._row < len(self._ids) and self._show(known_B[self._row]):
            self._next_row()

    def end(self) -> None:
        """The batch is done, or was given up."""
        if self._canvas is None:
            return
        length_B = self._canvas.length_B.tolist()
        known_B = decided(self._canvas).tolist()
        while self._row < len(self._ids):
            self._show(min(length_B[self._row], known_B[self._row]), last=True)
            self._next_row()
        self._canvas = None

    def _start_row(self) -> None:
        if self._row < len(self._ids):
            self._first = self._known = self._prompts[self._row]
            self._shown = ""
            if self.title:
                self.write(f"[{clean(self._ids[self._row], lines=False)}]\n")

    def _next_row(self) -> None:
        self.write("\n")
        self._row += 1
        self._start_row()

    def _show(self, known: int, *, last: bool = False) -> bool:
        """Write what is new of the row; True if that is all there will be."""
        assert self._canvas is not None
        limit = self._prompts[self._row] + self._ends.most[self._row]
        known = min(known, limit)
        if known == self._known and not last:
            return known == limit
        self._known = known
        ids = self._canvas.values[self._row, self._first : known].tolist()
        stops = [n for n, i in enumerate(ids) if i in self._ends.ids]
        text, cut = self._ends.cut(self.model.decode(ids[: stops[0]] if stops else ids))
        done = last or cut or bool(stops) or known == limit
        # What may still become a character, or a text that ends the row, is held back.
        whole = text if done else text[: len(text) - self._held].rstrip(HALF)
        self.write(clean(whole[len(self._shown) :]))
        self._shown = max(self._shown, whole, key=len)
        if whole == text and text.endswith("\n") and not self._held:  # decode no line twice
            self._first, self._shown = known, ""
        return done


def clean(text: str, *, lines: bool = True) -> str:
    """Text without control characters, which could change what a terminal does."""
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else HALF for c in text)
