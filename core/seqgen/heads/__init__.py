"""Heads: from hidden states to proposals and to the loss.

    from seqgen.heads import CategoricalHead, FlowHead, GaussianHead, QuantileHead

`CategoricalHead` chooses token ids. The others give continuous values: `RegressionHead` a number,
`GaussianHead`, `StudentTHead` and `QuantileHead` a distribution of every number, `FlowHead` samples
of whole vectors.
"""

from seqgen.heads.base import Head, Proposal, Request
from seqgen.heads.categorical import CategoricalHead
from seqgen.heads.continuous import Distribution, DistributionHead
from seqgen.heads.distributions import Gaussian, GaussianHead, StudentT, StudentTHead
from seqgen.heads.flow import FlowHead
from seqgen.heads.quantile import QuantileFunction, QuantileHead
from seqgen.heads.regression import RegressionHead

__all__ = [
    "CategoricalHead",
    "Distribution",
    "DistributionHead",
    "FlowHead",
    "Gaussian",
    "GaussianHead",
    "Head",
    "Proposal",
    "QuantileFunction",
    "QuantileHead",
    "RegressionHead",
    "Request",
    "StudentT",
    "StudentTHead",
]
