"""The light module: what this plugin registers. Import nothing heavy here (no torch, no numpy)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable

from seqgen.domain import DomainInfo
from seqgen.hookspecs import hookimpl


class MyPlugin:
    """Reads written dates."""

    api = 1

    @hookimpl
    def seqgen_domains(self) -> Sequence[DomainInfo]:
        return [
            DomainInfo(
                name="myplugin",
                summary="Written dates to ISO dates: 'March 3, 2021' to 2021-03-03",
                factory="seqgen_myplugin.domain:MyPluginDomain",
                inputs="text files with a date a line, after a tab the expected one; - for stdin",
                formats=("jsonl", "txt"),
                decoders={
                    "ar": "one character after another",
                    "nar": "all ten characters in one pass",
                    "mask-predict": "all at once, the least certain ones again",
                    "block-diffusion": "blocks of characters, each filled in a few passes",
                },
                default_decoder="ar",
            )
        ]

    @hookimpl
    def seqgen_cards(self) -> Sequence[Traversable]:
        return [files(__name__) / "cards.yaml"]


plugin = MyPlugin()
