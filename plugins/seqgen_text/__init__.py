"""The text plugin's light module: what it registers. Nothing heavy is imported here.

The work sits in `seqgen_text.domain.TextDomain`, imported when the domain is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqgen.domain import DomainInfo
from seqgen.hookspecs import hookimpl


class TextPlugin:
    """Language models in the Qwen3 layout: a tokenizer, a prompt, a text."""

    api = 1

    @hookimpl
    def seqgen_domains(self) -> Sequence[DomainInfo]:
        return [
            DomainInfo(
                name="text",
                summary="Text from a prompt, by Qwen3 and SDAR language models",
                factory="seqgen_text.domain:TextDomain",
                inputs="a prompt; a file .txt (a prompt a line) or .jsonl; - for standard input",
                formats=("jsonl", "txt"),
                decoders={
                    "ar": "one token after another, from left to right",
                    "block-diffusion": "blocks from left to right, each filled in a few passes",
                    "speculative": "as ar, several drafted tokens verified in one pass",
                    "nar": "all tokens at once, the most certain ones first (mask-predict)",
                },
                default_decoder="ar",
                extra="text",
            )
        ]


plugin = TextPlugin()
