"""Training a character-level language model, and its conversion to block diffusion.

    seqgen train --plugin text --preset tiny -o runs/ar
    seqgen train --plugin text --convert block-diffusion --from runs/ar -o runs/block

Without `--data` the documents are tales (`corpus.py`). The result is a Hugging Face folder, of
Qwen3 or, converted, of SDAR. A conversion starts from any such folder of Qwen3's.

Shapes: B rows, S slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqgen.decoders import Autoregressive, BlockDiffusion
from seqgen.decoders.base import Decoder
from seqgen.errors import CheckpointError
from seqgen.logits import Ban, Sampling
from seqgen.model import SequenceModel, device_of
from seqgen.models.qwen3 import Qwen3Config, load_qwen3
from seqgen.models.qwen3_write import new_qwen3, write_qwen3
from seqgen.options import option
from seqgen.orders import Blocks, Raster
from seqgen.training.convert import BlockDiffusionOptions, to_masked
from seqgen.training.objectives import teacher_forcing
from seqgen.training.task import FitConfig
from seqgen_text.characters import END_ID, MASK, UNKNOWN, character_tokenizer, mask_id_of
from seqgen_text.chat import ChatTemplate
from seqgen_text.documents import Documents, Windows, read_documents
from seqgen_text.measures import bits_per_character, finished_tales, true_tales

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class TextTraining:
    """Options of training; `--set key=value`."""

    width: int = option(128, help="model width", range=(16, None))
    layers: int = option(5, help="transformer blocks", range=(1, None))
    heads: int = option(4, help="query heads", range=(1, None))
    kv_heads: int = option(2, help="key/value heads", range=(1, None))
    hidden: int = option(352, help="feed-forward width", range=(16, None))
    length: int = option(128, help="characters of a training window", range=(8, None))
    max_positions: int = option(1024, help="positions the model is said to be made for")
    batch: int = option(32, help="windows a batch", range=(1, None))
    count: int = option(
        60_000, help="tales to train on where no --data is given", range=(100, None)
    )
    validation: int = option(200, help="documents to validate on", range=(1, None))


@dataclass(frozen=True)
class TextConversion(BlockDiffusionOptions):
    """Options of a conversion; `--set key=value`."""

    length: int = option(128, help="characters of a training window", range=(8, None))
    batch: int = option(32, help="windows a batch", range=(1, None))
    count: int = option(
        60_000, help="tales to train on where no --data is given", range=(100, None)
    )
    validation: int = option(200, help="documents to validate on", range=(1, None))


_TINY = FitConfig(
    steps=3000,
    lr=3e-3,
    warmup=100,
    schedule="cosine",
    final_lr=0.02,
    precision="bfloat16",
    compile=True,
    weight_decay=0.05,
    log_every=100,
    validate_every=1000,
    save_every=500,
)
_MICRO = FitConfig(
    steps=30, lr=3e-3, warmup=5, log_every=10, validate_every=30, save_every=10
)  # shows that everything works


class TextTask:
    """What `seqgen train --plugin text` offers.

    `--data` is a UTF-8 text file or a folder of *.txt, documents separated by empty lines.
    """

    presets: Mapping[str, tuple[Any, FitConfig]] = {
        "tiny": (TextTraining(), _TINY),
        "micro": (
            TextTraining(
                width=32, layers=2, heads=2, kv_heads=1, hidden=64, length=48, batch=8,
                count=500, validation=8,
            ),
            _MICRO,
        ),
    }  # fmt: skip
    conversions: Mapping[str, tuple[Any, FitConfig]] = {
        "block-diffusion": (TextConversion(), replace(_TINY, steps=1000, lr=2e-3)),
    }

    def start(
        self,
        options: TextTraining,
        fit: FitConfig,
        *,
        data: Path | None,
        seed: int,
        folder: Path,
    ) -> TextRun:
        documents = read_documents(data, count=options.count)
        tokenizer = character_tokenizer(documents.characters)
        config = Qwen3Config(
            vocabulary=tokenizer.get_vocab_size(),
            width=options.width,
            hidden=options.hidden,
            layers=options.layers,
            heads=options.heads,
            kv_heads=options.kv_heads,
            head_width=options.width // options.heads,
            rope_theta=10_000.0,
            norm_eps=1e-6,
            tied=False,
            max_positions=options.max_positions,
            stop_ids=(END_ID,),
        )
        torch.manual_seed(seed)
        return TextRun(
            new_qwen3(config),
            config,
            tokenizer,
            documents,
            _windows(documents, tokenizer, config, options, seed),
            validation=options.validation,
            seed=seed,
        )

    def convert(
        self,
        checkpoint: Path,
        options: TextConversion,
        fit: FitConfig,
        *,
        data: Path | None,
        seed: int,
        folder: Path,
    ) -> TextRun:
        """Go on from an autoregressive folder with masked inputs.

        Raises:
            CheckpointError: it is none, or is converted already.
        """
        if checkpoint.is_file():  # a card's first file
            checkpoint = checkpoint.parent
        model, config, tokenizer = load_qwen3(checkpoint)
        if config.mask_id is not None:
            raise CheckpointError(
                f"{checkpoint} is a block-diffusion model already",
                why=f"its config.json names the mask token {config.mask_id}",
                fix="--from the autoregressive model that it was made of",
            )
        if tokenizer is None:
            raise CheckpointError(f"{checkpoint} has no tokenizer.json")
        if not config.stop_ids:
            raise CheckpointError(f"{checkpoint} names no eos_token_id, which separates documents")
        masked, mask_id = _masked(model, config, tokenizer)
        documents = read_documents(data, count=options.count)
        return TextRun(
            masked,
            replace(
                config,
                vocabulary=max(config.vocabulary, mask_id + 1),
                mask_id=mask_id,
                block_length=options.block_length,
            ),
            tokenizer,
            documents,
            _windows(documents, tokenizer, config, options, seed),
            validation=options.validation,
            seed=seed,
            conversion=options,
            chat=ChatTemplate.read(checkpoint),
        )


def _windows(
    documents: Documents,
    tokenizer: Tokenizer,
    config: Qwen3Config,
    options: TextTraining | TextConversion,
    seed: int,
) -> Windows:
    return Windows(
        documents,
        tokenizer,
        end_id=config.stop_ids[0],
        length=options.length,
        size=options.batch,
        seed=seed,
    )


def _masked(
    model: SequenceModel, config: Qwen3Config, tokenizer: Tokenizer
) -> tuple[SequenceModel, int]:
    """The model with masked inputs, and its mask: the tokenizer's, a spare row, or a new one."""
    mask_id = mask_id_of(tokenizer)
    if mask_id is None:
        tokenizer.add_special_tokens([MASK])
        mask_id = mask_id_of(tokenizer)
        assert mask_id is not None
    if mask_id > config.vocabulary:
        raise CheckpointError(
            f"the tokenizer knows {mask_id} tokens, the model {config.vocabulary}",
            fix="get both from the same place",
        )
    return to_masked(model, mask_id=mask_id, in_vocabulary=True), mask_id


Batch = tuple[Tensor, int, int]
"""Windows [B, S], the number of the batch, and the process it is for."""


class TextRun:
    """The model, its batches and its losses.

    Args:
        validation: documents to validate on.
        conversion: how the masked model is trained; None for an autoregressive one.
        chat: the template of the model that is converted, which its folder keeps.
    """

    def __init__(
        self,
        model: SequenceModel,
        config: Qwen3Config,
        tokenizer: Tokenizer,
        documents: Documents,
        windows: Windows,
        *,
        validation: int,
        seed: int,
        conversion: TextConversion | None = None,
        chat: ChatTemplate | None = None,
    ) -> None:
        self.sequence_model = model
        self.config, self.tokenizer = config, tokenizer
        self.documents, self.windows = documents, windows
        self.validation, self.seed, self.conversion = validation, seed, conversion
        self.chat = chat

    @property
    def model(self) -> nn.Module:
        return self.sequence_model

    def batch(self, step: int, rank: int, world: int) -> Batch:
        ids_BS = self.windows.batch(step, rank)
        return ids_BS.to(device_of(self.sequence_model)), step, rank

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        ids_BS, number, rank = batch
        if self.conversion is None:
            return {"loss": teacher_forcing(self.sequence_model, ids_BS)}
        # The first token of a window is never decoded: a prompt always holds it.
        first_S = torch.arange(ids_BS.shape[1], device=ids_BS.device)[None] == 0
        return {
            "loss": self.conversion.loss(
                self.sequence_model,
                ids_BS,
                seed=self.seed,
                step=number,
                rank=rank,
                fixed_BS=first_S.expand_as(ids_BS),
            )
        }

    def validate(self) -> dict[str, float]:
        """Bits per character; of tales also the share that a decoder gets right."""
        kept = self.documents.held_out[: self.validation]
        order = Raster() if self.conversion is None else Blocks(self.config.block_length)
        model, tokenizer = self.sequence_model, self.tokenizer
        end_id = self.config.stop_ids[0]
        bits = bits_per_character(model, tokenizer, kept, order, end_id=end_id, seed=0)
        found = {"bits_per_character": bits}
        if tales := self.documents.tales[: self.validation]:
            done = finished_tales(model, tokenizer, self.decoder(0.0), tales)
            free = true_tales(model, tokenizer, self.decoder(1.0), count=self.validation, seed=0)
            found |= {"finished": done.share, "true": free.share}
            found["tokens_per_forward"] = done.tokens_per_forward
        return found

    def decoder(self, temperature: float) -> Decoder:
        """How the model is validated: greedily or by sampling, 0.9 sure where it has a choice."""
        return decoder_of(self.config, self.tokenizer, temperature=temperature)

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        written = write_qwen3(
            folder,
            self.sequence_model,
            self.config,
            tokenizer=self.tokenizer,
            notes={"plugin": "text", "training": dict(notes)},
        )
        if self.chat is not None:
            self.chat.write(written)
        return written


def decoder_of(
    config: Qwen3Config, tokenizer: Tokenizer, *, temperature: float, threshold: float = 0.9
) -> Decoder:
    """The decoder a model was trained for. It never writes the mask or an unknown character."""
    never = (tokenizer.token_to_id(UNKNOWN), mask_id_of(tokenizer), config.mask_id)
    ban = Ban(tuple({i for i in never if i is not None}))
    sampling = Sampling(temperature=temperature, constraints=(ban,))
    if config.mask_id is None:
        return Autoregressive(sampling=sampling, stop_ids=config.stop_ids)
    return BlockDiffusion(
        block_length=config.block_length,
        threshold=threshold,
        sampling=sampling,
        stop_ids=config.stop_ids,
    )
