"""Recognisers for the tests: random weights, tokens and all decoders, made in a moment."""

from __future__ import annotations

from pathlib import Path

SENTENCES = ["one two three four five six seven eight nine zero", "hello world", "press any key"]


def random_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A checkpoint as `seqgen train --plugin speech` writes it; what it says is nonsense."""
    import torch

    from seqgen.transformer import TransformerConfig
    from seqgen_speech.features import FrontEndConfig
    from seqgen_speech.paraformer import ParaformerConfig
    from seqgen_speech.recogniser import Recogniser, RecogniserConfig, save_recogniser
    from seqgen_speech.text import train_bpe

    torch.manual_seed(seed)
    tokens = train_bpe(SENTENCES, 60)
    front_end = FrontEndConfig()
    config = RecogniserConfig(
        front_end=front_end,
        paraformer=ParaformerConfig.small(
            vocabulary=len(tokens),
            width=32,
            encoder_layers=2,
            decoder_layers=1,
            ffn_width=64,
            input_width=front_end.dim,
        ),
        masked=TransformerConfig(width=32, layers=1, heads=4, context_width=32),
    )
    return save_recogniser(Recogniser(config, tokens), folder / "model.safetensors", {})


def shipped_model() -> bool:
    """Whether the plugin's default model lies on this machine."""
    from seqgen.errors import SeqgenError
    from seqgen.plugins import Plugins
    from seqgen.weights import local_files

    try:
        return bool(local_files(Plugins().registry("speech").default_card("speech")))
    except SeqgenError:
        return False
