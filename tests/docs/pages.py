"""Reads the documentation as the tests run it: code blocks, commands, links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"^(?:<!-- test: (?P<name>[\w-]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: what stands behind the opening fence.
        text: its content.
        name: from a comment `<!-- test: NAME -->` in the line above, or empty.
        line: of the opening fence, from 1.
    """

    language: str
    text: str
    name: str
    line: int


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            match["language"],
            match["text"],
            match["name"] or "",
            text.count("\n", 0, match.start("language")) + 1,
        )
        for match in _BLOCK.finditer(text)
    ]


def run_python(page: Path, found: list[Block]) -> dict[str, object]:
    """Execute Python blocks one after another in one namespace; errors name the page's line."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in found:
        code = compile("\n" * block.line + block.text, str(page), "exec")
        exec(code, namespace)
    return namespace


def pages() -> list[Path]:
    """Every page: those at the root, docs/ and the decisions."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
