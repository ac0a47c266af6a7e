"""Heads: from hidden states to proposals and to the loss."""

from seqgen.heads.base import Head, Proposal, Request
from seqgen.heads.categorical import CategoricalHead

__all__ = ["CategoricalHead", "Head", "Proposal", "Request"]
