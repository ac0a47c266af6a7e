"""The speech plugin's light module: what it registers. Nothing heavy is imported here.

The work sits in `seqgen_speech.domain.SpeechDomain`, imported when the domain is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqgen.domain import DomainInfo
from seqgen.hookspecs import hookimpl


class SpeechPlugin:
    """Speech recognition: one encoder, four ways to decode its text."""

    api = 1

    @hookimpl
    def seqgen_domains(self) -> Sequence[DomainInfo]:
        return [
            DomainInfo(
                name="speech",
                summary="Speech recognition from audio files",
                factory="seqgen_speech.domain:SpeechDomain",
                inputs="wav, flac, ogg, mp3: files, folders, globs, jsonl or Kaldi manifests, -",
                formats=("jsonl", "txt", "srt", "vtt", "textgrid"),
                decoders={
                    "paraformer": "all tokens in one pass; their number by integrate-and-fire",
                    "ar": "one token after another, from left to right",
                    "mask-predict": "all tokens at once, the least certain ones again",
                    "block-diffusion": "blocks from left to right, each filled in a few passes",
                },
                default_decoder="paraformer",
                extra="speech",
            )
        ]


plugin = SpeechPlugin()
