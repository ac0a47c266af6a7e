"""Decoders: recipes over the one loop.

    from seqgen.decoders import Autoregressive, Beam, BlockDiffusion, NonAutoregressive, Speculative

Each is a frozen dataclass of options; `generate(model, canvas, context)` drains
`stream(model, canvas, context)`, which yields an `Event` a forward pass.
"""

from seqgen.decoders.autoregressive import Autoregressive
from seqgen.decoders.base import Decoder, Generated
from seqgen.decoders.beam import Beam
from seqgen.decoders.block_diffusion import BlockDiffusion
from seqgen.decoders.non_autoregressive import NonAutoregressive
from seqgen.decoders.speculative import Speculative

__all__ = [
    "Autoregressive",
    "Beam",
    "BlockDiffusion",
    "Decoder",
    "Generated",
    "NonAutoregressive",
    "Speculative",
]
