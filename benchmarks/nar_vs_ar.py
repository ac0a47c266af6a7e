"""One pass against token by token: the Paraformer beside two cached autoregressive decoders.

    python benchmarks/nar_vs_ar.py [--json FILE] [--repeats 7] [--sizes shipped,d256]

The same encoder feeds three decoders of the same width and number of layers:

- `nar`: the Paraformer decoder, all tokens in one pass (with the CIF predictor that counts them);
- `ar_masked`: the masked decoder of the shipped model, token by token (blocks of one);
- `ar_shifted`: a usual transformer decoder, the previous token in, the next one out.

All run through the core's loop, greedy, one row, one thread. Weights are random, because only sizes
matter, and lengths are forced: 5, 10 and 20 s of audio with 25, 50 and 100 tokens; no stop token.
Figures are medians of processor milliseconds, calls in turns: the decoder alone (the projection of
the encoder's states included), and end to end from features to tokens.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from seqgen.benchmark import interleaved, print_result, result, write_result
from seqgen.canvas import Canvas
from seqgen.decoders import Autoregressive, Decoder, NonAutoregressive
from seqgen.heads import CategoricalHead
from seqgen.inputs import ShiftedInputs
from seqgen.linear import pack
from seqgen.model import Context, SequenceModel, parameter_count
from seqgen.transformer import Transformer, TransformerConfig
from seqgen_speech.features import FrontEndConfig
from seqgen_speech.paraformer import ParaformerConfig
from seqgen_speech.recogniser import Recogniser, RecogniserConfig
from seqgen_speech.text import Tokens

SIZES = {
    "shipped": {"width": 160, "encoder": 6, "decoder": 2, "heads": 4, "vocabulary": 400},
    "d256": {"width": 256, "encoder": 12, "decoder": 6, "heads": 4, "vocabulary": 8404},
}
"""The shipped model's sizes (`seqgen train --preset tiny`), and those of a common small model."""
CASES = ((25, 5), (50, 10), (100, 20))
"""(tokens, seconds)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="shipped,d256")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in arguments.sizes.split(","):
        model, shifted = make_models(**SIZES[size])
        for tokens, seconds in CASES:
            calls = make_calls(model, shifted, tokens, seconds)
            times = {k: t.cpu_ms for k, t in interleaved(calls, repeats=arguments.repeats).items()}
            rows.append(
                {
                    "case": f"{size}, {tokens} tokens, {seconds} s",
                    **{f"{name}_ms": value for name, value in times.items()},
                    **{
                        f"{part}_{ar}_over_nar": times[f"{part}_{ar}"] / times[f"{part}_nar"]
                        for part in ("decode", "total")
                        for ar in ("ar_masked", "ar_shifted")
                    },
                }
            )
    outcome = result("nar_vs_ar", rows)
    print_result(outcome)
    if arguments.json:
        write_result(outcome, arguments.json)


def make_models(
    *, width: int, encoder: int, decoder: int, heads: int, vocabulary: int
) -> tuple[Recogniser, SequenceModel]:
    """A recogniser with its two decoders, and a shifted decoder of the masked one's size."""
    torch.manual_seed(0)
    pieces = ("<blank>", "<s>", "</s>", *map(str, range(vocabulary - 4)), "<unk>")
    front_end = FrontEndConfig()
    sizes = TransformerConfig(width=width, layers=decoder, heads=heads, context_width=width)
    config = RecogniserConfig(
        front_end=front_end,
        paraformer=ParaformerConfig.small(
            vocabulary=vocabulary,
            width=width,
            encoder_layers=encoder,
            decoder_layers=decoder,
            heads=heads,
            ffn_width=4 * width,
            input_width=front_end.dim,
        ),
        masked=sizes,
    )
    model = Recogniser(config, Tokens(pieces)).eval()
    embedding = nn.Embedding(vocabulary + 1, width)
    nn.init.normal_(embedding.weight, std=width**-0.5)
    shifted = SequenceModel(
        inputs=ShiftedInputs(embedding, start_id=vocabulary),
        backbone=Transformer(sizes),
        head=CategoricalHead(width, vocabulary, tied=embedding),
    ).eval()
    pack(model)
    pack(shifted)
    decoders = {
        "paraformer": model.paraformer.decoder,
        "masked": model.masked,
        "shifted": shifted,
        "encoder": model.paraformer.encoder,
    }
    counts = {name: parameter_count(part) for name, part in decoders.items() if part is not None}
    print(", ".join(f"{name} {count / 1e6:.2f} M" for name, count in counts.items()))
    return model, shifted


def make_calls(
    model: Recogniser, shifted: SequenceModel, tokens: int, seconds: int
) -> dict[str, Callable[[], object]]:
    """What is timed: the encoder, each decoder alone, and each end to end."""
    torch.manual_seed(tokens)
    frames = round(seconds / model.config.front_end.step_seconds)
    features = torch.randn(1, frames, model.config.front_end.dim)
    assert model.masked is not None
    nar, ar = NonAutoregressive(), Autoregressive()
    one_pass, masked = model.one_pass(), model.masked
    with torch.inference_mode():
        states = encode(model, features)
        context = count(model, states, tokens)

    def total(sequence_model: SequenceModel, decoder: Decoder, *, counted: bool) -> None:
        with torch.inference_mode():
            heard = encode(model, features)
            if counted:
                heard = count(model, heard, tokens)
        run(sequence_model, decoder, heard, tokens)

    @torch.inference_mode()
    def encode_only() -> None:
        encode(model, features)

    return {
        "encode": encode_only,
        "decode_nar": partial(run, one_pass, nar, context, tokens),
        "decode_ar_masked": partial(run, masked, ar, context, tokens),
        "decode_ar_shifted": partial(run, shifted, ar, states, tokens),
        "total_nar": partial(total, one_pass, nar, counted=True),
        "total_ar_masked": partial(total, masked, ar, counted=True),
        "total_ar_shifted": partial(total, shifted, ar, counted=False),
    }


def encode(model: Recogniser, features: Tensor) -> Context:
    """The encoder's states alone."""
    lengths = torch.tensor([features.shape[1]])
    return Context(states_BTD=model.paraformer.encode(features, lengths))


def count(model: Recogniser, context: Context, tokens: int) -> Context:
    """The CIF predictor, its weights scaled so that it fires `tokens` times."""
    states = context.states_BTD
    assert states is not None
    lengths = torch.tensor([states.shape[1]])
    cif = model.paraformer.predict(states, lengths, torch.tensor([tokens]))
    given = cif.embeddings_BND[:, :tokens]
    assert given.shape[1] == tokens, f"{given.shape[1]} fires for {tokens} tokens"
    return replace(context, given_BSD=given)


def run(model: SequenceModel, decoder: Decoder, context: Context, tokens: int) -> None:
    """Decode one row of `tokens` tokens."""
    made = decoder.generate(model, Canvas(torch.zeros(1, tokens, dtype=torch.int64)), context)
    assert made.length_B.tolist() == [tokens]


if __name__ == "__main__":
    main()
