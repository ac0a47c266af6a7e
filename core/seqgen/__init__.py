"""seqgen: one core that decodes any sequence in any order.

Importing `seqgen` is cheap; the parts import torch when they are imported themselves
(`from seqgen.decoders import BlockDiffusion`).
"""

__version__ = "0.1.0"
