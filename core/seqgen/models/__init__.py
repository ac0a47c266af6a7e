"""Published architectures over the core's parts, and the loaders of their weights.

    from seqgen.models.qwen3 import load_qwen3

Each module reads the authors' own files into a `SequenceModel`; nothing is imported from here.
"""
