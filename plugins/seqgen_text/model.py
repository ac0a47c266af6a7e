"""A language model and its tokenizer, from one folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from seqgen.errors import CheckpointError, ConfigError
from seqgen.linear import pack
from seqgen.model import SequenceModel
from seqgen.models.folder import read_tokenizer
from seqgen.models.qwen3 import Qwen3Config, load_qwen3, read_config
from seqgen_text.chat import ChatTemplate
from seqgen_text.options import TextOptions

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn


@dataclass(frozen=True)
class TextModel:
    """What `load_text_model` makes of a folder.

    Attributes:
        ar: the model as it runs token by token: with shifted inputs (Qwen3) or masked ones (SDAR).
        block: the model with masked inputs; None if the config names no mask token.
        tokenizer: texts to ids and back.
        config: sizes and special ids.
        chat: the chat template; None if the folder has none.
        folder: where it lies.
        steps: what was done to it, and so is to be done to its draft models.
    """

    ar: SequenceModel
    block: SequenceModel | None
    tokenizer: Tokenizer
    config: Qwen3Config
    chat: ChatTemplate | None
    folder: Path
    steps: list[Callable[[nn.Module], None]] = field(default_factory=list, repr=False)

    @property
    def decoders(self) -> tuple[str, ...]:
        """The decoders that this model has."""
        return ("ar", "speculative") if self.block is None else ("ar", "block-diffusion", "nar")

    def when_loaded(self, step: Callable[[nn.Module], None]) -> None:
        """Do `step` to the model, and to draft models once they are loaded."""
        step(self.ar)
        self.steps.append(step)

    def encode(self, text: str) -> list[int]:
        """Ids of a text as it is, without special tokens around it."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_prompt(self, prompt: str, options: TextOptions) -> list[int]:
        """Ids of a prompt, through the chat template if there is one and `chat` allows it.

        Raises:
            ConfigError: `chat=on` or a system message, and the model has no template.
            CheckpointError: the template is wrong.
        """
        if options.chat == "off" or (self.chat is None and not self._asks_for_chat(options)):
            ids: list[int] = self.tokenizer.encode(prompt).ids
            return ids
        if self.chat is None:
            raise ConfigError(
                f"{self.folder} has no chat template",
                why="neither chat_template.jinja nor a chat_template in tokenizer_config.json",
                fix="--set chat=off and no --set system, or a chat model",
            )
        return self.encode(self.chat.render(prompt, options.system))

    def decode(self, ids: list[int]) -> str:
        """The text of ids, special tokens left out."""
        text: str = self.tokenizer.decode(ids)
        return text

    def piece(self, token: int) -> str:
        """A token as the vocabulary writes it; empty for ids that the tokenizer does not know."""
        return self.tokenizer.id_to_token(token) or ""

    def _asks_for_chat(self, options: TextOptions) -> bool:
        return options.chat == "on" or bool(options.system)


def load_text_model(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TextModel:
    """Read a Hugging Face folder: config.json, safetensors (one file or shards), tokenizer.json.

    Args:
        path: the folder, or a file in it.
        dtype: floating type of the weights in memory, whatever the files hold.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not fit together.
        PluginError: the package `tokenizers` is not installed.
    """
    folder = Path(path)
    if folder.is_file():
        folder = folder.parent
    # Small files first: what is wrong with them shows before gigabytes are read.
    config = read_config(folder)
    tokenizer = _tokenizer(folder, config)
    chat = ChatTemplate.read(folder)
    model, config, _ = load_qwen3(folder, device=device, dtype=dtype)
    pack(model)
    block = None if config.mask_id is None else model
    return TextModel(model, block, tokenizer, config, chat, folder)


def _tokenizer(folder: Path, config: Qwen3Config) -> Tokenizer:
    tokenizer = read_tokenizer(folder)
    if tokenizer is None:
        raise CheckpointError(
            f"{folder} has no tokenizer.json",
            why="without it a text cannot be turned into tokens",
            fix="put the tokenizer.json of the same model beside its config.json; transformers "
            "makes one: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    most = max(tokenizer.get_vocab().values(), default=-1)
    if most >= config.vocabulary:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'} has token {most}, the model {config.vocabulary} tokens",
            why="they are of different models",
            fix="get both from the same place",
        )
    # What a file may ask for: prompts cut without a word, or filled up.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
