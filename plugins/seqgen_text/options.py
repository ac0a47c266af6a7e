"""Options of `--set key=value`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seqgen.errors import ConfigError
from seqgen.options import option

Chat = Literal["auto", "on", "off"]
"""Whether a prompt goes through the model's chat template; `auto`: if the model has one."""

InputKind = Literal["auto", "text", "file"]
"""What an INPUT is; `auto`: an existing `.txt` or `.jsonl` is a file, everything else a prompt."""

Remasking = Literal[
    "sequential", "low_confidence_static", "low_confidence_dynamic", "entropy_bounded"
]

DEFAULT_NEW_TOKENS = 128


@dataclass(frozen=True)
class TextOptions:
    """What is read, how tokens are chosen, and how each decoder works."""

    max_new_tokens: int | None = option(
        None, help="new tokens at most; none: 128, or those of the reference", range=(1, None)
    )
    temperature: float = option(0.0, help="0 takes the most probable token", range=(0.0, None))
    top_k: int = option(0, help="sample from the k best tokens; 0: all", range=(0, None))
    top_p: float = option(1.0, help="sample from this much probability mass", range=(0.001, 1.0))
    min_p: float = option(
        0.0, help="sample from tokens this probable beside the best one", range=(0.0, 1.0)
    )
    repetition_penalty: float = option(
        1.0, help="above 1: tokens that are there already are less likely", range=(0.01, None)
    )
    stop: tuple[str, ...] = option(
        (), help=r"end before one of these texts (\n, \t, \\ as in C; commas: in a --config file)"
    )
    end: bool = option(True, help="end at the model's end-of-text tokens")

    input: InputKind = option("auto", help="what an INPUT is; auto: .txt and .jsonl are files")
    window: int = option(
        0,
        help="cut .txt files into windows of so many characters: first half prompt, second half "
        "reference; 0: a prompt a line",
        range=(0, None),
    )
    chat: Chat = option("auto", help="use the chat template; auto: if the model has one")
    system: str = option("", help="system message of the chat template")

    block_length: int | None = option(
        None, help="tokens a block of block-diffusion; none: as trained", range=(1, None)
    )
    steps: int | None = option(
        None,
        help="passes at most: of a block (none, or more than its length: its length), of nar "
        "(none: 8)",
        range=(1, None),
    )
    remasking: Remasking = option(
        "low_confidence_dynamic", help="which tokens of a block stand after a pass"
    )
    threshold: float = option(
        0.85, help="confidence above which low_confidence_dynamic keeps a token", range=(0.0, 1.0)
    )
    entropy_bound: float = option(
        0.35, help="nats that entropy_bounded accepts in a pass", range=(0.0, None)
    )
    entropy_own: bool = option(
        True, help="a token's own entropy counts (SDAR); false: only of those before it"
    )
    confidence: Literal["raw", "temperature", "filtered"] = option(
        "raw", help="probability that counts: of the model, after temperature, after filters"
    )
    ties: Literal["earliest", "topk"] = option(
        "earliest", help="which of equally confident tokens stand first"
    )

    draft: str = option("", help="speculative: folder of a smaller model; empty: n-gram lookup")
    draft_length: int = option(4, help="speculative: tokens drafted a pass", range=(1, None))
    ngram: int = option(3, help="speculative: longest repetition looked up", range=(1, None))

    def __post_init__(self) -> None:
        if "" in self.stop:
            raise ConfigError("option 'stop' holds an empty text", fix=r"--set stop='\n\n'")
        if self.system and self.chat == "off":
            raise ConfigError(
                "option 'system' needs a chat template, and chat=off", fix="--set chat=on"
            )

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """`stop` with its escapes read."""
        escapes = {"n": "\n", "t": "\t", "\\": "\\"}

        def read(text: str) -> str:
            head, *tails = text.replace("\\\\", "\0").split("\\")
            parts = [escapes.get(tail[:1], "\\" + tail[:1]) + tail[1:] for tail in tails]
            return "".join([head, *parts]).replace("\0", "\\")

        return tuple(read(text) for text in self.stop)
