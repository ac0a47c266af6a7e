"""Decoders: recipes over the one loop.

    from seqgen.decoders import Autoregressive, Beam, BlockDiffusion, Hybrid, NonAutoregressive

Each is a frozen dataclass of options; `generate(model, canvas, context)` drains
`stream(model, canvas, context)`, which yields an `Event` a forward pass.
"""

from seqgen.decoders.autoregressive import Autoregressive
from seqgen.decoders.base import Decoder, Generated
from seqgen.decoders.beam import Beam
from seqgen.decoders.block_diffusion import BlockDiffusion
from seqgen.decoders.draft_verify import DraftAndVerify, DraftDecoder, Verified
from seqgen.decoders.hybrid import ConcatenatedMemory, FirstPass, Hybrid
from seqgen.decoders.non_autoregressive import NonAutoregressive
from seqgen.decoders.one_pass import OnePass
from seqgen.decoders.ordered import Ordered
from seqgen.decoders.speculative import Speculative

__all__ = [
    "Autoregressive",
    "Beam",
    "BlockDiffusion",
    "ConcatenatedMemory",
    "Decoder",
    "DraftAndVerify",
    "DraftDecoder",
    "FirstPass",
    "Generated",
    "Hybrid",
    "NonAutoregressive",
    "OnePass",
    "Ordered",
    "Speculative",
    "Verified",
]
