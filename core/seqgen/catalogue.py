"""The decoders of the core, listed without importing them (`seqgen decoders`)."""

from __future__ import annotations

from seqgen.hookspecs import DecoderInfo

CORE_DECODERS = (
    DecoderInfo(
        name="autoregressive",
        summary="one slot after another, each seeing those before it; greedy or sampled",
        factory="seqgen.decoders.autoregressive:Autoregressive",
    ),
    DecoderInfo(
        name="beam",
        summary="as autoregressive, but the most probable sequences are searched for: several "
        "hypotheses an item, n-best answers, constraints",
        factory="seqgen.decoders.beam:Beam",
        paper="arXiv 1609.08144",
    ),
    DecoderInfo(
        name="non-autoregressive",
        summary="all slots at once: in one pass, or again and again where least certain "
        "(mask-predict)",
        factory="seqgen.decoders.non_autoregressive:NonAutoregressive",
        paper="arXiv 1904.09324",
    ),
    DecoderInfo(
        name="block-diffusion",
        summary="blocks from left to right, the slots of a block filled in a few passes",
        factory="seqgen.decoders.block_diffusion:BlockDiffusion",
        paper="arXiv 2503.09573",
    ),
    DecoderInfo(
        name="speculative",
        summary="as autoregressive, but several slots are drafted cheaply (a small model, n-gram "
        "lookup) and verified in one pass",
        factory="seqgen.decoders.speculative:Speculative",
        paper="arXiv 2211.17192",
    ),
    DecoderInfo(
        name="one-pass",
        summary="all slots in one pass, then a search over their logits: CTC greedy or prefix "
        "beams, or a domain's exact program",
        factory="seqgen.decoders.one_pass:OnePass",
        paper="doi:10.1038/s41467-024-55021-3",
    ),
    DecoderInfo(
        name="ordered",
        summary="group by group in an order given: scales, diagonals, rows, cells, one of your own",
        factory="seqgen.decoders.ordered:Ordered",
        paper="arXiv 2404.02905",
    ),
    DecoderInfo(
        name="hybrid",
        summary="a non-autoregressive pass whose hidden states another decoder's model attends to",
        factory="seqgen.decoders.hybrid:Hybrid",
        paper="arXiv 2510.08169",
    ),
    DecoderInfo(
        name="draft-verify",
        summary="a draft of the whole sequence, scored by the model in one pass; only rows it "
        "rejects are decoded",
        factory="seqgen.decoders.draft_verify:DraftAndVerify",
    ),
)
