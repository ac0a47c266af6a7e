"""Vector quantization: every vector becomes the id of its nearest code.

The codes are running means of the vectors they serve (van den Oord et al., "Neural Discrete
Representation Learning", 2017, appendix A.1), or, with `decay=0`, parameters that learn from the
gradient (equation 3 there; LlamaGen's with `l2_normalised`).

Shapes: B rows, S slots, N = B S vectors, C channels, V codes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqgen.errors import ConfigError
from seqgen.tokenizers.kmeans import kmeans, nearest, totals_by_code
from seqgen.tokenizers.pointwise import PointwiseQuantizer, straight_through
from seqgen.tokenizers.ranks import from_first, total

EPSILON = 1e-5
"""Laplace smoothing of the counts."""

USE_DECAY = 0.99
"""Of the running counts where the codes learn from the gradient."""


class VectorQuantizer(PointwiseQuantizer):
    """A codebook with k-means for a start and new places for dead codes.

    Args:
        codes: vocabulary V.
        channels: of the latent C.
        grid: rows and columns of the latent; None for a square of any size.
        l2_normalised: compare directions: vectors and codes have length 1.
        decay: of the running means; 0 for codes that learn from the gradient.
        beta: weight of the commitment of the vectors to their codes.
        revive_below: a code that serves less than this part of uniform use is moved to a random
            vector of the batch; 0 for never.
        kmeans_init: place the codes on the first vectors seen in training.
    """

    codebook_VC: Tensor
    count_V: Tensor
    sum_VC: Tensor
    initialised: Tensor

    def __init__(
        self,
        codes: int = 512,
        channels: int = 8,
        *,
        grid: tuple[int, int] | None = None,
        l2_normalised: bool = False,
        decay: float = 0.99,
        beta: float = 0.25,
        revive_below: float = 0.1,
        kmeans_init: bool = True,
    ) -> None:
        super().__init__(codes, channels, grid)
        if codes < 1 or channels < 1 or not 0 <= decay < 1:
            raise ConfigError(
                f"a codebook of codes={codes}, channels={channels}, decay={decay} cannot be made",
                fix="codes and channels are 1 or more, decay is at least 0 and below 1",
            )
        self.codes, self.l2_normalised = codes, l2_normalised
        self.decay, self.beta, self.revive_below = decay, beta, revive_below
        self.kmeans_init = kmeans_init
        codebook_VC = torch.randn(codes, channels)
        codebook_VC = self._lengths(codebook_VC) if l2_normalised else codebook_VC / channels**0.5
        if decay:
            self.register_buffer("codebook_VC", codebook_VC)
            self.register_buffer("sum_VC", codebook_VC.clone())
        else:
            self.codebook_VC = nn.Parameter(codebook_VC)
        self.register_buffer("count_V", torch.ones(codes))
        self.register_buffer("initialised", torch.tensor(not kmeans_init))

    def ids_of(self, x_BSC: Tensor) -> Tensor:
        """Ids [B, S] of the nearest codes."""
        points_NC = self._lengths(x_BSC.float()).flatten(0, 1)
        return nearest(points_NC, self._lengths(self.codebook_VC)).view(x_BSC.shape[:2])

    def vectors(self, ids_BS: Tensor) -> Tensor:
        """The codes [B, S, C] of ids."""
        return F.embedding(ids_BS, self._lengths(self.codebook_VC))

    def mean_vector(self) -> Tensor:
        """The mean of the codes [C], by use."""
        share_V = self.count_V / self.count_V.sum()
        return share_V @ self._lengths(self.codebook_VC.detach())

    def quantize(self, x_BSC: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Loss: beta mse(x, sg(q)), and mse(sg(x), q) where codes learn from the gradient."""
        x_BSC = self._lengths(x_BSC)
        points_NC = x_BSC.detach().flatten(0, 1)
        if self.training and not self.initialised:
            self._place(points_NC, seed=0)
        elif self.training and self.revive_below:
            self._revive(points_NC)  # before the codes are used: gradients need them unchanged
        ids_BS = self.ids_of(x_BSC)
        quantized_BSC = self.vectors(ids_BS)
        commitment = F.mse_loss(x_BSC, quantized_BSC.detach())
        loss = self.beta * commitment
        if not self.decay:
            loss = loss + F.mse_loss(quantized_BSC, x_BSC.detach())
        if self.training:
            self._learn(points_NC, ids_BS.flatten())
        straight = straight_through(x_BSC, quantized_BSC)
        return straight, ids_BS, loss, {"commitment": commitment}

    def initialise(self, f_BCHW: Tensor, *, seed: int = 0) -> None:
        """Place the codes on a latent's vectors by k-means."""
        x_BSC = f_BCHW.detach().float().flatten(2).transpose(1, 2)
        self._place(self._lengths(x_BSC).flatten(0, 1), seed=seed)

    @torch.no_grad()
    def _place(self, points_NC: Tensor, *, seed: int) -> None:
        centres_VC = from_first(kmeans(points_NC, self.codes, seed=seed))
        self.codebook_VC.copy_(self._lengths(centres_VC))
        # Counts as if the running means had been at work on batches of this size all the time.
        counts_V, _ = totals_by_code(points_NC, nearest(points_NC, self.codebook_VC), self.codes)
        self.count_V.copy_(total(counts_V))
        if self.decay:
            self.sum_VC.copy_(self.codebook_VC * self.count_V[:, None])
        self.initialised.fill_(True)

    @torch.no_grad()
    def _learn(self, points_NC: Tensor, ids_N: Tensor) -> None:
        counts_V, sums_VC = totals_by_code(points_NC, ids_N, self.codes)
        counts_V = total(counts_V)
        self.count_V.lerp_(counts_V, 1 - (self.decay or USE_DECAY))
        if self.decay:
            self.sum_VC.lerp_(total(sums_VC), 1 - self.decay)
            all_counts = self.count_V.sum()
            smooth_V = (self.count_V + EPSILON) / (all_counts + self.codes * EPSILON) * all_counts
            self.codebook_VC.copy_(self._lengths(self.sum_VC / smooth_V[:, None]))

    @torch.no_grad()
    def _revive(self, points_NC: Tensor) -> None:
        """Move codes with little use; not one by one, so that the device is never waited for."""
        uniform = self.count_V.mean()
        dead_V = self.count_V < self.revive_below * uniform
        drawn_V = torch.randint(len(points_NC), (self.codes,), device=points_NC.device)
        found_VC = from_first(points_NC[drawn_V])
        self.codebook_VC.copy_(torch.where(dead_V[:, None], found_VC, self.codebook_VC))
        # Time to be found, though not yet the weight of a code in full use.
        fresh = 2 * self.revive_below * uniform
        self.count_V.copy_(torch.where(dead_V, fresh, self.count_V))
        if self.decay:
            self.sum_VC.copy_(torch.where(dead_V[:, None], found_VC * fresh, self.sum_VC))

    def _lengths(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.l2_normalised else x
