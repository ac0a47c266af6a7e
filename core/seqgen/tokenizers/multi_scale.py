"""Multi-scale residual vector quantization, as VAR defines it: the latent, coarse to fine.

Every scale is a grid of tokens over the whole latent. A scale's tokens say what the scales before
it leave over: the rest is resized to the scale's grid by area means, each vector is replaced by its
nearest code, and what the codes stand for, upsampled and smoothed, is taken off the rest.

    rest, fhat = f, 0
    for k in scales:
        ids_k = nearest(area(rest, s_k))
        h = phi_k(bicubic(codebook[ids_k]))       phi(h) = (1 - r) h + r conv3x3(h)
        fhat, rest = fhat + h, rest - h

Source: Tian et al., "Visual Autoregressive Modeling" (2024), algorithms 1 and 2, section 3.2.

Shapes: B rows, S slots, N slots of one scale, C channels, H and W side of the latent; K scales,
V codes.
"""

from __future__ import annotations

from itertools import accumulate as running_sum
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqgen.errors import ConfigError
from seqgen.tokenizers.base import Quantized
from seqgen.tokenizers.kmeans import code_counts, kmeans, nearest
from seqgen.tokenizers.patches import check_ids
from seqgen.tokenizers.ranks import from_first, total


class MultiScaleRVQ(nn.Module):
    """Residual vector quantization over scales, with one codebook for all of them.

    The codebook learns from the gradient of the loss. Two things keep the coarse scales, which hold
    few of the vectors, from falling to a handful of codes: the first latents seen in training place
    the codes by a residual k-means that gives every scale its share, and a code that no scale uses
    is moved to a vector of a scale drawn with equal chances.

    Args:
        scales: side of each scale's grid, coarse first; the last is the side of the latent. Equal
            sides make the plain residual quantizer.
        codes: vocabulary V.
        channels: of the latent C.
        phis: convolutions shared by the scales; 0 for none (phi is the identity).
        phi_ratio: r above.
        beta: weight of the commitment of the latent to its codes.
        revive_below: a code is dead if every scale uses it less than this part of uniform use; 0
            leaves dead codes where they are, as VAR does.
        use_decay: of the running means of code use.
    """

    use_KV: Tensor
    initialised: Tensor

    def __init__(
        self,
        scales: tuple[int, ...] = (1, 2, 4, 8),
        codes: int = 512,
        channels: int = 16,
        *,
        phis: int = 4,
        phi_ratio: float = 0.5,
        beta: float = 0.25,
        revive_below: float = 0.1,
        use_decay: float = 0.98,
    ) -> None:
        super().__init__()
        scales = tuple(scales)
        if not scales or scales[0] < 1 or any(a > b for a, b in pairwise(scales)):
            raise ConfigError(f"scales={scales} must not shrink", fix="such as 1,2,4,8")
        self.scales, self.codes, self.channels = scales, codes, channels
        self.phis, self.phi_ratio, self.beta = phis, phi_ratio, beta
        self.revive_below, self.use_decay = revive_below, use_decay
        self.vocabulary = codes
        self.grid = (scales[-1], scales[-1])
        ends = tuple(running_sum(side * side for side in scales))
        self.bounds = tuple(zip((0, *ends), ends, strict=False))
        self.slots = ends[-1]
        self.codebook_VC = nn.Parameter(torch.randn(codes, channels) / channels**0.5)
        self.phi = nn.ModuleList(_smoothing(channels) for _ in range(phis))
        self.phi_of_scale = tuple(phi_of(k, len(scales), phis) for k in range(len(scales)))
        self.register_buffer("use_KV", torch.full((len(scales), codes), 1 / codes))
        self.register_buffer("initialised", torch.tensor(False))

    # --- ids and latents ---

    def encode(self, f_BCHW: Tensor) -> Tensor:
        """Ids [B, S] of a latent: the scales one after the other, raster order within each."""
        with torch.no_grad():
            rest, found = f_BCHW, []
            for scale in range(len(self.scales)):
                points_BNC = self.resize(rest, scale)
                ids_BN = nearest(points_BNC.flatten(0, 1), self.codebook_VC).view(len(rest), -1)
                rest = rest - self._contribution(ids_BN, scale)
                found.append(ids_BN)
            return torch.cat(found, dim=1)

    def decode(self, ids_BS: Tensor, scales: int | None = None) -> Tensor:
        """The latent [B, C, H, W] of ids, or of their first `scales` scales."""
        count = len(self.scales) if scales is None else scales
        # Ids of later scales need not be there.
        check_ids(
            ids_BS if scales is None else ids_BS[:, : self.slots_of(count)], self.slots_of(count)
        )
        f_BCHW = self.empty(len(ids_BS))
        for scale in range(count):
            f_BCHW = self.accumulate(f_BCHW, ids_BS[:, slice(*self.bounds[scale])], scale)
        return f_BCHW

    def decode_partial(self, ids_BS: Tensor, known_BS: Tensor) -> Tensor:
        """The latent of the known slots: an unknown one adds nothing to the scales before it."""
        check_ids(ids_BS, self.slots)
        ids_BS = ids_BS.masked_fill(~known_BS, 0)
        f_BCHW = self.empty(len(ids_BS))
        for scale, (start, stop) in enumerate(self.bounds):
            known_BN = known_BS[:, start:stop]
            h = self._contribution(ids_BS[:, start:stop], scale, known_BN)
            # Also the bias of phi is left out where the scale has not begun.
            f_BCHW = f_BCHW + h * known_BN.any(dim=1)[:, None, None, None]
        return f_BCHW

    # --- one scale at a time, for models over the scales ---

    def slots_of(self, scales: int) -> int:
        """Slots of the first `scales` scales."""
        if not 0 <= scales <= len(self.scales):
            raise ValueError(f"scales={scales} is not between 0 and {len(self.scales)}")
        return self.bounds[scales - 1][1] if scales else 0

    def empty(self, batch: int) -> Tensor:
        """The latent of no scale: zeros [B, C, H, W]."""
        return self.codebook_VC.new_zeros(batch, self.channels, *self.grid)

    def accumulate(self, f_BCHW: Tensor, ids_BN: Tensor, scale: int) -> Tensor:
        """The latent with the tokens [B, N] of one scale added."""
        return f_BCHW + self._contribution(ids_BN, scale)

    def resize(self, f_BCHW: Tensor, scale: int) -> Tensor:
        """The latent on the scale's grid by area means, [B, N, C]: what a model of it is fed."""
        if self.scales[scale] != self.grid[0]:
            f_BCHW = F.interpolate(f_BCHW, size=(self.scales[scale],) * 2, mode="area")
        return f_BCHW.flatten(2).transpose(1, 2)

    def inputs(self, ids_BS: Tensor) -> Tensor:
        """What a model is fed for every scale but the first, [B, S - N of the first, C].

        For scale k the sum of the scales before it, resized to its grid. The ids of the last scale
        are not read and need not be there.
        """
        f_BCHW, fed = self.empty(len(ids_BS)), []
        for scale, (start, stop) in enumerate(self.bounds[:-1]):
            f_BCHW = self.accumulate(f_BCHW, ids_BS[:, start:stop], scale)
            fed.append(self.resize(f_BCHW, scale + 1))
        if not fed:
            return self.codebook_VC.new_zeros(len(ids_BS), 0, self.channels)
        return torch.cat(fed, dim=1)

    # --- training ---

    def forward(self, f_BCHW: Tensor) -> Quantized:
        """Quantize a latent; the loss is VAR's, the mean over scales of

        beta mse(sg(fhat_k), f) + mse(fhat_k, sg(f))

        In float32, whatever the precision around it.
        """
        with torch.autocast(f_BCHW.device.type, enabled=False):
            return self._quantize(f_BCHW.float())

    def _quantize(self, f_BCHW: Tensor) -> Quantized:
        target = f_BCHW.detach()
        if self.training and not self.initialised:
            self.initialise(target)
        fhat = torch.zeros_like(target)
        loss, ids, rests = f_BCHW.new_zeros(()), [], []
        for scale in range(len(self.scales)):
            rest_BNC = self.resize(target - fhat.detach(), scale)
            ids.append(nearest(rest_BNC.flatten(0, 1), self.codebook_VC).view(len(f_BCHW), -1))
            rests.append(rest_BNC.flatten(0, 1))
            fhat = self.accumulate(fhat, ids[-1], scale)
            loss = loss + self.beta * F.mse_loss(f_BCHW, fhat.detach()) + F.mse_loss(fhat, target)
        if self.training:
            self._count(ids)
            if self.revive_below:
                self._revive(rests)
        loss = loss / len(self.scales)
        straight = f_BCHW + (fhat - f_BCHW).detach()
        return Quantized(straight, torch.cat(ids, dim=1), loss, {"quantizer": loss.detach()})

    @torch.no_grad()
    def initialise(self, f_BCHW: Tensor, *, seed: int = 0, iterations: int = 10) -> None:
        """Place the codes by residual k-means: each scale's on what the scales before leave over.

        A scale gets codes in proportion to its side, but at most one for two vectors; the last one
        gets what is left. Without training (phi as it was made, the identity) the result is already
        a usable tokenizer.
        """
        rest, placed = f_BCHW.detach().float(), 0
        for scale, side in enumerate(self.scales):
            points_NC = self.resize(rest, scale).flatten(0, 1)
            left = self.codes - placed
            if scale < len(self.scales) - 1:
                share = round(left * side / sum(self.scales[scale:]))
                left = min(left, max(1, min(share, len(points_NC) // 2)))
            if left:
                centres_VC = kmeans(points_NC, left, iterations=iterations, seed=seed + scale)
                self.codebook_VC[placed : placed + left] = from_first(centres_VC)
                placed += left
            # Only the codes placed so far: the others mean nothing yet.
            ids_N = nearest(points_NC, self.codebook_VC[:placed])
            rest = rest - self._contribution(ids_N.view(len(rest), -1), scale)
        self.use_KV.fill_(1 / self.codes)
        self.initialised.fill_(True)

    @torch.no_grad()
    def _count(self, ids: list[Tensor]) -> None:
        """Running mean of the part of each scale's tokens that has each code."""
        counts_KV = total(torch.stack([code_counts(ids_BN, self.codes) for ids_BN in ids]).float())
        self.use_KV.lerp_(counts_KV / counts_KV.sum(1, keepdim=True), 1 - self.use_decay)

    @torch.no_grad()
    def _revive(self, rests: list[Tensor]) -> None:
        """Move dead codes to vectors of this batch, of every scale with the same chance.

        After the pass, so that its gradients are those of the codes it used.
        """
        device = self.use_KV.device
        drawn = [torch.randint(len(rest_NC), (self.codes,), device=device) for rest_NC in rests]
        found_KVC = torch.stack([rest_NC[d] for rest_NC, d in zip(rests, drawn, strict=True)])
        scale_V = torch.randint(len(rests), (self.codes,), device=device)
        found_VC = from_first(found_KVC[scale_V, torch.arange(self.codes, device=device)])
        dead_V = (self.use_KV * self.codes).amax(0) < self.revive_below
        self.codebook_VC.copy_(torch.where(dead_V[:, None], found_VC, self.codebook_VC))
        self.use_KV.masked_fill_(dead_V, 1 / self.codes)  # time to be found

    # --- one scale ---

    def _contribution(self, ids_BN: Tensor, scale: int, known_BN: Tensor | None = None) -> Tensor:
        """What one scale's tokens add to the latent, [B, C, H, W]."""
        h_BNC = F.embedding(ids_BN, self.codebook_VC)
        if known_BN is not None:
            h_BNC = h_BNC * known_BN[..., None]
        side = self.scales[scale]
        h = h_BNC.transpose(1, 2).reshape(len(ids_BN), self.channels, side, side)
        if side != self.grid[0]:
            h = F.interpolate(h, size=self.grid, mode="bicubic")
        if self.phis:
            h = h * (1 - self.phi_ratio) + self.phi[self.phi_of_scale[scale]](h) * self.phi_ratio
        return h


def phi_of(scale: int, scales: int, phis: int) -> int:
    """Which of the shared convolutions a scale uses: the one whose tick is nearest.

    The ticks lie evenly between 1/3/4 and 1 - 1/3/4 for four of them, else between 1/2/n and
    1 - 1/2/n. VAR's ten scales meet four ticks in exact ties, which rounding decides: hence the
    same float64 operations as there.
    """
    edge = 1 / 3 / phis if phis == 4 else 1 / 2 / max(1, phis)
    ticks = np.linspace(edge, 1 - edge, phis)
    place = scale / (scales - 1) if scales > 1 else 0.0
    return int(np.abs(ticks - place).argmin()) if phis else 0


def _smoothing(channels: int) -> nn.Conv2d:
    """A convolution that begins as the identity."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    nn.init.dirac_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
