"""Lookup-free quantization (LFQ): the id of a vector is the signs of its channels.

A loss keeps every vector sure of its code and the codes evenly used. With `spherical`, vectors and
codes lie on the unit sphere: binary spherical quantization (BSQ).

Sources: Yu et al., "Language Model Beats Diffusion" (2023), section 3.1, equations 4 and 5; Zhao et
al., "Image and Video Tokenization with Binary Spherical Quantization" (2024), section 4.1.

Shapes: B rows, S slots, C channels (bits).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seqgen.errors import ConfigError
from seqgen.tokenizers.pointwise import PointwiseQuantizer, straight_through
from seqgen.tokenizers.ranks import total

MOST_BITS = 30


class LookupFreeQuantizer(PointwiseQuantizer):
    """One bit a channel; the first channel is the highest bit of the id.

    Args:
        bits: channels of the latent; the vocabulary is 2 to this power.
        grid: rows and columns of the latent; None for a square of any size.
        spherical: vectors and codes have length 1 (BSQ).
        beta: weight of the commitment.
        entropy_weight: weight of (entropy of each vector's code - diversity x entropy of the mean).
        diversity: see there.
        temperature: of the softmax over codes: probabilities are softmax(2 x.c / temperature).
        group: the entropy of the mean is taken over groups of so many bits and summed; exact if
            all bits are one group, else an upper bound that costs 2 to the group's power.
    """

    values_C: Tensor

    def __init__(
        self,
        bits: int = 9,
        *,
        grid: tuple[int, int] | None = None,
        spherical: bool = False,
        beta: float = 0.25,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 0.01,
        group: int = 10,
    ) -> None:
        if not 1 <= bits <= MOST_BITS:
            raise ConfigError(f"bits={bits} must lie between 1 and {MOST_BITS}")
        if temperature <= 0 or group < 1:
            raise ConfigError(f"temperature={temperature} and group={group} must be above 0")
        super().__init__(2**bits, bits, grid)
        self.bits, self.spherical, self.beta = bits, spherical, beta
        self.entropy_weight, self.diversity = entropy_weight, diversity
        self.temperature, self.group = temperature, group
        self.size = bits**-0.5 if spherical else 1.0
        values = 2 ** torch.arange(bits - 1, -1, -1)
        self.register_buffer("values_C", values, persistent=False)

    def ids_of(self, x_BSC: Tensor) -> Tensor:
        """Ids [B, S] of the signs; 0 counts as negative."""
        return ((x_BSC > 0) * self.values_C).sum(-1)

    def vectors(self, ids_BS: Tensor) -> Tensor:
        """Codes [B, S, C]: 1 or -1, divided by the root of C if spherical."""
        ones_BSC = (ids_BS[..., None] & self.values_C) != 0
        return torch.where(ones_BSC, self.size, -self.size)

    def mean_vector(self) -> Tensor:
        """The middle of the codes [C]."""
        return torch.zeros(self.channels, device=self.values_C.device)

    def quantize(self, x_BSC: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Loss: commitment and entropies; see the class."""
        if self.spherical:
            x_BSC = F.normalize(x_BSC, dim=-1)
        ids_BS = self.ids_of(x_BSC)
        codes_BSC = self.vectors(ids_BS)
        commitment = F.mse_loss(x_BSC, codes_BSC)
        each, mean = self.entropies(x_BSC.flatten(0, 1))
        loss = self.beta * commitment + self.entropy_weight * (each - self.diversity * mean)
        parts = {"commitment": commitment, "entropy_each": each, "entropy_mean": mean}
        return straight_through(x_BSC, codes_BSC), ids_BS, loss, parts

    def entropies(self, x_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Mean entropy of the code of a vector, and the entropy of the mean code, in nats.

        The softmax over all codes is a product over bits, because 2 x.c is a sum over them: bit i
        is set with probability sigmoid(4 x_i c_i / temperature).
        """
        logits_NC = 4 * self.size / self.temperature * x_NC
        each = _bit_entropies(logits_NC).sum(1).mean()
        mean = sum(
            (_entropy(_joint(part_NG)) for part_NG in torch.split(logits_NC, self.group, dim=1)),
            start=x_NC.new_zeros(()),
        )
        return each, mean


def _bit_entropies(logits: Tensor) -> Tensor:
    set_, clear = F.logsigmoid(logits), F.logsigmoid(-logits)
    return -(set_.exp() * set_ + clear.exp() * clear)


def _joint(logits_NG: Tensor) -> Tensor:
    """Mean probability [2^G] of every combination of a group's bits, over all processes."""
    set_NG = torch.sigmoid(logits_NG)
    joint_NK = set_NG.new_ones(len(set_NG), 1)
    for set_N1 in torch.split(set_NG, 1, dim=1):
        joint_NK = torch.stack([joint_NK * (1 - set_N1), joint_NK * set_N1], dim=2).flatten(1)
    mean_K = joint_NK.mean(0)
    # The value is that of all processes; the gradient that of this one's vectors.
    everyone_K = total(mean_K.detach())
    return mean_K + (everyone_K / everyone_K.sum() - mean_K).detach()


def _entropy(probabilities: Tensor) -> Tensor:
    kept = probabilities.clamp(min=1e-10)  # the slope at 0 is infinite
    return -(kept * kept.log()).sum()
