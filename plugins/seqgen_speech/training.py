"""Training of the recogniser: one encoder, both decoders at once.

Every step trains the Paraformer (cross-entropy with the glancing sampler, length error, CTC) and
the masked decoder under one of several block lengths in turn: blocks of one (token by token), of a
few, and one block (mask-predict). A second stage (`mwer=true`) adds Paraformer's minimum word error
rate loss.

Legend: B batch, T frames, N tokens, S slots, F feature width.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive
from seqgen.errors import CheckpointError, InputError
from seqgen.orders import Blocks, Order, Raster, Whole
from seqgen.training.objectives import Noise, noisy_clean
from seqgen.training.task import FitConfig, TrainingRun
from seqgen.transformer import TransformerConfig
from seqgen_speech.augment import AugmentConfig
from seqgen_speech.corpus import Corpus, digit_strings, load_corpus
from seqgen_speech.features import FrontEndConfig
from seqgen_speech.losses import ParaformerLossConfig, mwer_loss, paraformer_loss
from seqgen_speech.metrics import edits
from seqgen_speech.paraformer import ParaformerConfig
from seqgen_speech.recogniser import (
    Recogniser,
    RecogniserConfig,
    load_recogniser,
    save_recogniser,
)
from seqgen_speech.simulate import Batch, SimulateConfig, SpeechBatches, tokenizer_texts
from seqgen_speech.synth import SynthConfig, generate
from seqgen_speech.text import train_bpe


@dataclass(frozen=True)
class SpeechTraining:
    """Options of training; `--set key=value`."""

    width: int = field(default=160, metadata={"help": "model width"})
    encoder_layers: int = field(default=6, metadata={"help": "SANM encoder layers"})
    decoder_layers: int = field(default=2, metadata={"help": "Paraformer decoder layers"})
    masked_layers: int = field(default=2, metadata={"help": "layers of the masked decoder"})
    heads: int = field(default=4, metadata={"help": "attention heads"})
    dropout: float = field(default=0.05, metadata={"help": "dropout"})
    vocabulary: int = field(default=400, metadata={"help": "byte-pair pieces"})
    lfr_n: int = field(default=6, metadata={"help": "frames of 10 ms a step"})
    sampling_ratio: float = field(default=0.5, metadata={"help": "of the glancing sampler"})
    ctc_weight: float = field(
        default=0.05, metadata={"help": "share of CTC (a sum) in the token loss (a mean)"}
    )
    label_smoothing: float = field(default=0.1, metadata={"help": "label smoothing"})
    masked_weight: float = field(default=1.0, metadata={"help": "weight of the masked decoder"})
    mwer: bool = field(default=False, metadata={"help": "second stage: add the MWER loss"})
    init: str = field(default="", metadata={"help": "start from this checkpoint"})
    prompts: float = field(default=0.4, metadata={"help": "share of recorded prompts"})
    digits: float = field(
        default=0.2, metadata={"help": "share of spoken digits; the rest is synthetic"}
    )
    augment: float = field(
        default=0.4, metadata={"help": "strength of the augmentation; 0 for none", "min": 0.0}
    )
    batch_seconds: float = field(default=40.0, metadata={"help": "audio a batch"})
    synthetic: int = field(
        default=16000, metadata={"help": "synthetic sentences (needs flite); 0 for none"}
    )
    cache: str = field(
        default="", metadata={"help": "folder of the synthetic speech; default: the run's"}
    )


class SpeechTask:
    """`seqgen train --plugin speech`."""

    presets: Mapping[str, tuple[SpeechTraining, FitConfig]] = {
        "tiny": (
            SpeechTraining(),
            FitConfig(
                steps=13500,
                lr=1.5e-3,
                warmup=400,
                ema=0.999,
                precision="bfloat16",
                validate_every=1000,
                log_every=100,
                save_every=250,
                clip=5.0,
            ),
        ),
        "tiny-mwer": (
            SpeechTraining(mwer=True, masked_weight=1.0),
            FitConfig(steps=500, lr=1e-4, warmup=50, ema=0.99, validate_every=250, clip=5.0),
        ),
        "smoke": (
            SpeechTraining(
                width=32,
                encoder_layers=2,
                decoder_layers=1,
                masked_layers=1,
                vocabulary=80,
                batch_seconds=10.0,
                synthetic=0,
            ),
            FitConfig(steps=4, warmup=2, validate_every=4, save_every=2, log_every=2),
        ),
    }

    def start(
        self, options: SpeechTraining, fit: FitConfig, *, data: Path | None, seed: int, folder: Path
    ) -> TrainingRun:
        if data is None:
            raise InputError(
                "training speech recognition needs recordings",
                fix="--data FOLDER with prompts.jsonl, prompts/ and fsdd/",
            )
        return SpeechRun(options, load_corpus(data), seed=seed, folder=folder)


class SpeechRun:
    """One training."""

    def __init__(self, options: SpeechTraining, corpus: Corpus, *, seed: int, folder: Path) -> None:
        self.options, self.corpus, self.seed = options, corpus, seed
        rank = int(os.environ.get("RANK", "0"))
        synthetic = None
        if options.synthetic:
            cache = Path(options.cache) if options.cache else folder / "synthetic"
            synthetic = generate(
                cache,
                SynthConfig(utterances=options.synthetic),
                on_progress=_progress if rank == 0 else None,
            )
        torch.manual_seed(seed)
        if options.init:
            self.model = load_recogniser(Path(options.init))
            if options.mwer and self.model.masked is None and options.masked_weight:
                raise CheckpointError(f"{options.init} has no masked decoder to train")
        else:
            tokens = train_bpe(tokenizer_texts(corpus, synthetic), options.vocabulary)
            self.model = Recogniser(_configuration(options, len(tokens)), tokens)
        config = SimulateConfig(
            seed=seed,
            batch_seconds=options.batch_seconds,
            prompts=options.prompts,
            digits=options.digits,
            synthetic=1 - options.prompts - options.digits,
            pool=16,
            augment=_augmentation(options.augment),
        )
        front_end = self.model.front_end
        self.batches = SpeechBatches(corpus, synthetic, self.model.tokens, front_end, config)
        if not options.init:
            shift, scale = self.batches.cmvn()
            front_end.shift.copy_(shift)
            front_end.scale.copy_(scale)
        self.losses_config = ParaformerLossConfig(
            sampling_ratio=options.sampling_ratio,
            label_smoothing=options.label_smoothing,
            ctc_weight=options.ctc_weight,
        )
        self.orders: tuple[tuple[Order, Noise], ...] = (
            (Raster(), Noise(1.0, 1.0, weighting="none")),
            (Blocks(4), Noise(0.3, 1.0, weighting="none")),
            (Whole(), Noise(0.3, 1.0, weighting="none")),
            (Blocks(8), Noise(0.3, 1.0, weighting="none")),
        )

    def batch(self, step: int, rank: int, world: int) -> Batch:
        return self.batches.batch(step * world + rank)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        model, options = self.model, self.options
        device = next(model.parameters()).device
        features, lengths, targets, target_lengths = (x.to(device) for x in batch)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        context = model.encode(features, lengths)
        stage = mwer_loss if options.mwer else paraformer_loss
        parts = stage(
            model.paraformer,
            features,
            lengths,
            targets,
            target_lengths,
            generator,
            self.losses_config,
            states_BTD=context.states_BTD,
        )
        if model.masked is None or not options.masked_weight:
            return parts
        order, noise = self.orders[step % len(self.orders)]
        filled, valid = self._slots(targets, target_lengths, order)
        assert context.states_BTD is not None
        cif = model.paraformer.predict(context.states_BTD, lengths, target_lengths)
        room = max(0, filled.shape[1] - cif.embeddings_BND.shape[1])
        given = nn.functional.pad(cif.embeddings_BND, (0, 0, 0, room))
        masked = noisy_clean(
            model.masked,
            filled,
            valid,
            order=order,
            generator=generator,
            noise=noise,
            context=replace(context, given_BSD=given),
        )
        loss = parts["loss"] + options.masked_weight * masked
        return {**parts, "loss": loss, "masked": masked.detach()}

    def _slots(self, targets_BN: Tensor, lengths_B: Tensor, order: Order) -> tuple[Tensor, Tensor]:
        """Slots of the masked decoder: the text, then end tokens to the end of its last block.

        One block over everything is decoded with a given length, so there the text stands alone.
        """
        size = order.length if isinstance(order, Blocks) else 1
        used_B = lengths_B
        if not isinstance(order, Whole):
            used_B = (lengths_B // size + 1) * size
        index = torch.arange(int(used_B.max()), device=targets_BN.device)
        padded = nn.functional.pad(targets_BN, (0, max(0, len(index) - targets_BN.shape[1])))
        text_BS = index < lengths_B[:, None]
        filled = torch.where(text_BS, padded[:, : len(index)], self.model.end_id)
        return filled, index < used_B[:, None]

    def validate(self) -> dict[str, float]:
        """Word error rates of the one-pass and the token-by-token decoder on held-out speech."""
        strings = digit_strings(self.corpus.dev_digits, seed=0, count=200)
        sets = {"prompts": self.corpus.dev_prompts, "digits": strings}
        metrics: dict[str, float] = {}
        for name, utterances in sets.items():
            truths: list[list[str]] = []
            found: dict[str, list[list[str]]] = {"paraformer": [], "ar": []}
            for batch in self.batches.plain(utterances):
                truths += self._words(batch.targets_BN.clamp(min=0), batch.target_lengths_B)
                for decoder, words in self._transcripts(batch).items():
                    found[decoder] += words
            for decoder, words in found.items():
                if words:
                    result = edits(truths, words)
                    metrics[f"wer_{name}_{decoder}"] = result.errors / max(1, result.length)
        return metrics

    @torch.inference_mode()
    def _transcripts(self, batch: Batch) -> dict[str, list[list[str]]]:
        model = self.model
        device = next(model.parameters()).device
        features, lengths = batch.features_BLD.to(device), batch.feature_lengths_B.to(device)
        recognition = model.paraformer.recognise(features, lengths)
        out = {"paraformer": self._words(recognition.ids_BN, recognition.cif.counts_B)}
        if model.masked is not None:
            context = model.listen(features, lengths)
            assert context.given_BSD is not None
            longest = max(int(batch.target_lengths_B.max()), context.given_BSD.shape[1])
            slots = longest + 10
            given = nn.functional.pad(
                context.given_BSD, (0, 0, 0, slots - context.given_BSD.shape[1])
            )
            context = replace(context, given_BSD=given)
            canvas = Canvas(torch.zeros(len(lengths), slots, dtype=torch.int64, device=device))
            decoder = Autoregressive(stop_ids=(model.end_id,))
            made = decoder.generate(model.masked, canvas, context)
            out["ar"] = self._words(made.values, made.length_B)
        return out

    def _words(self, ids_BN: Tensor, lengths_B: Tensor) -> list[list[str]]:
        rows = zip(ids_BN.tolist(), lengths_B.tolist(), strict=True)
        return [self.model.tokens.decode(ids[:length]).tokens for ids, length in rows]

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        return save_recogniser(self.model, folder / "model.safetensors", notes)


def _augmentation(strength: float) -> AugmentConfig:
    """The augmentation of the presets, its probabilities and ranges scaled."""
    return AugmentConfig(
        noise=min(1.0, 0.3 * strength),
        telephone=min(1.0, 0.1 * strength),
        room=min(1.0, 0.1 * strength),
        tilt=min(1.0, 0.2 * strength),
        level=(-26.0 - 14.0 * strength, -14.0),
        mel_width=round(12 * strength),
        time_share=0.04 * strength,
    )


def _configuration(options: SpeechTraining, vocabulary: int) -> RecogniserConfig:
    front_end = FrontEndConfig(lfr_n=options.lfr_n)
    return RecogniserConfig(
        front_end=front_end,
        paraformer=ParaformerConfig.small(
            vocabulary=vocabulary,
            width=options.width,
            encoder_layers=options.encoder_layers,
            decoder_layers=options.decoder_layers,
            heads=options.heads,
            ffn_width=4 * options.width,
            dropout=options.dropout,
            predictor_bias=0,
            ctc=options.ctc_weight > 0,
            input_width=front_end.dim,
        ),
        masked=TransformerConfig(
            width=options.width,
            layers=options.masked_layers,
            heads=options.heads,
            context_width=options.width,
            dropout=options.dropout,
        )
        if options.masked_layers
        else None,
    )


def _progress(done: int, total: int) -> None:
    if done == total or done % 500 == 0:
        print(f"synthetic speech: {done} of {total} sentences", file=sys.stderr, flush=True)
