"""A plugin as a stranger would write it, for the tests of the runner and the command line."""

from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable

from seqgen.domain import DomainInfo
from seqgen.hookspecs import hookimpl


class ToyPlugin:
    api = 1

    @hookimpl
    def seqgen_domains(self) -> Sequence[DomainInfo]:
        return [
            DomainInfo(
                name="toy",
                summary="rewrites short texts",
                factory="seqgen_toy.domain:ToyDomain",
                inputs="text files and folders of them",
                formats=("txt", "note"),
                decoders={
                    "upper": "all letters in one pass",
                    "reverse": "letter by letter",
                    "dice": "a random letter after every letter",
                },
                default_decoder="upper",
            )
        ]

    @hookimpl
    def seqgen_cards(self) -> Sequence[Traversable]:
        return [files("seqgen_toy") / "assets" / "cards.yaml"]


plugin = ToyPlugin()
