"""Image tokenizers: images to ids and back.

`PatchKMeans` (one scale) and `PatchTokenizer` (several) need no training. `ConvTokenizer` is
learned, around any quantizer: `VectorQuantizer`, `FiniteScalarQuantizer`, `LookupFreeQuantizer`
(also binary spherical) or `MultiScaleRVQ`. `tokenizer_config` and `build_tokenizer` go through
JSON, for checkpoints; `measure` says how good a tokenizer is.
"""

from seqgen.tokenizers.base import Quantized, Quantizer, Tokenizer
from seqgen.tokenizers.config import build_tokenizer, tokenizer_config
from seqgen.tokenizers.convolutional import ConvTokenizer
from seqgen.tokenizers.finite_scalar import FiniteScalarQuantizer
from seqgen.tokenizers.lookup_free import LookupFreeQuantizer
from seqgen.tokenizers.multi_scale import MultiScaleRVQ
from seqgen.tokenizers.patch_kmeans import PatchKMeans
from seqgen.tokenizers.patch_tokenizer import PatchTokenizer
from seqgen.tokenizers.vector_quantizer import VectorQuantizer

__all__ = [
    "ConvTokenizer",
    "FiniteScalarQuantizer",
    "LookupFreeQuantizer",
    "MultiScaleRVQ",
    "PatchKMeans",
    "PatchTokenizer",
    "Quantized",
    "Quantizer",
    "Tokenizer",
    "VectorQuantizer",
    "build_tokenizer",
    "tokenizer_config",
]
