"""CTC, connectionist temporal classification: more slots than values, and a blank between them.

A path names a value or the blank for every slot; repeats are merged, then blanks are dropped, so
many paths stand for one sequence (Graves et al. 2006, https://www.cs.toronto.edu/~graves/icml_2006.pdf).

    loss   = ctc_loss(logits_BSV, targets_BN, lengths_B, blank=0)
    best   = prefix_beam_search(logits_BSV, beams=10, blank=0)      # Hypotheses
    exact  = ctc_score(logits_BSV, best, blank=0)                   # log p, all paths summed
    where  = align(logits_BSV, best, blank=0)                       # which slot says which value
"""

from seqgen.ctc.lattice import Alignment, align, ctc_score
from seqgen.ctc.loss import ctc_loss
from seqgen.ctc.search import Collapsed, collapse, prefix_beam_search

__all__ = [
    "Alignment",
    "Collapsed",
    "align",
    "collapse",
    "ctc_loss",
    "ctc_score",
    "prefix_beam_search",
]
