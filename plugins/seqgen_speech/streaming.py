"""Paraformer on live audio: tokens every 600 ms, from a chunk, a look-ahead and a look-back.

The samples become low-rate frames of 60 ms. Window i holds the `look_ahead` frames that window
i - 1 looked ahead at, and `chunk` new ones, of which the last `look_ahead` are looked ahead at in
turn; the first window starts with zero frames. In each window

- the encoder's attention also sees the keys and values of the last `encoder_look_back` chunks (its
  FSMN memory stays inside the window);
- CIF integrates over the window's current frames and goes on from the last window's integral;
- the decoder's FSMN memory looks at earlier tokens only, and its attention also sees the keys and
  values of the last `decoder_look_back` chunks of windows that gave tokens.

`ParaformerStream` does this with caches, chunk by chunk; `chunked_reference` computes the same in
one pass over a whole recording, without caches, and is what a stream must equal. The weights are
those of the offline model.

Shape suffixes: T frames, S samples, W windows, K keys, N tokens, D width, F feature width; the
first dimension is the window (1 in the stream).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seqgen.errors import ConfigError
from seqgen_speech.cif import fire_shares
from seqgen_speech.decoder import DecoderLayer
from seqgen_speech.encoder import FsmnMemory, SanmEncoderLayer
from seqgen_speech.feature_stream import FeatureStream
from seqgen_speech.features import FrontEnd
from seqgen_speech.paraformer import Paraformer


@dataclass(frozen=True, kw_only=True)
class StreamingConfig:
    """Sizes in low-rate frames of 60 ms, and in chunks; the defaults are the official ones.

    Attributes:
        chunk: new frames of a window (600 ms).
        look_ahead: frames of the window that wait for the next one (300 ms).
        encoder_look_back: earlier chunks that the encoder's attention sees.
        decoder_look_back: earlier chunks that the decoder's attention sees.
    """

    chunk: int = 10
    look_ahead: int = 5
    encoder_look_back: int = 4
    decoder_look_back: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.look_ahead < self.chunk:
            raise ConfigError(
                f"look_ahead must lie in 1..{self.chunk - 1} (chunk - 1), got {self.look_ahead}"
            )
        if self.encoder_look_back < 0 or self.decoder_look_back < 0:
            raise ConfigError("look-backs must not be negative")


class StreamedTokens(NamedTuple):
    """New tokens, in order.

    Attributes:
        ids_N: token ids, special tokens not stripped.
        confidences_N: probability of each.
        frames_N: low-rate frame in which each fired, counted from the start of the audio.
    """

    ids_N: Tensor
    confidences_N: Tensor
    frames_N: Tensor


KeysValues = tuple[Tensor, Tensor]
Recall = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor | None]]
"""(keys, values) of the windows -> (all keys, all values, mask of the keys or None)."""


class ParaformerStream:
    """One recording that arrives in pieces: `push` samples, `finish` at the end.

    The tokens do not depend on how the samples are cut into pieces.
    """

    def __init__(
        self, model: Paraformer, front_end: FrontEnd, config: StreamingConfig | None = None
    ) -> None:
        self.model = model
        self.config = config or StreamingConfig()
        self._features = FeatureStream(front_end, self.config.chunk)
        width = model.config.encoder.width
        device = model.encoder.after_norm.weight.device
        self._frames = 0
        self._seen_ahead = torch.zeros(
            1, self.config.look_ahead, model.config.encoder.input_width, device=device
        )
        self._encoder_caches: list[KeysValues | None] = [None] * len(model.encoder.layers())
        self._decoder_caches: list[KeysValues | None] = [None] * len(model.decoder.layers())
        kernel = model.config.decoder.kernel
        self._memories = [
            torch.zeros(1, kernel - 1, width, device=device) for _ in model.decoder.layers()
        ]
        self._integral = torch.zeros(1, 1, dtype=torch.float64, device=device)
        self._partial_1D = torch.zeros(1, width, device=device)

    @torch.inference_mode()
    def push(self, samples_S: Tensor) -> StreamedTokens:
        """Take samples in [-1, 1] at the front end's rate; returns the tokens they complete."""
        return self._run(self._features.push(samples_S), final=False)

    @torch.inference_mode()
    def finish(self) -> StreamedTokens:
        """The last tokens. The stream must not be used afterwards."""
        rest_TF = self._features.finish()
        # The padded end may complete a chunk; the last window then holds what it looked ahead at.
        whole = [rest_TF] if len(rest_TF) == self.config.chunk else []
        first = self._run(iter(whole), final=False)
        last = self._run(iter([rest_TF[len(rest_TF) :] if whole else rest_TF]), final=True)
        return StreamedTokens(*(torch.cat(pair) for pair in zip(first, last, strict=True)))

    def _run(self, chunks: Iterator[Tensor], *, final: bool) -> StreamedTokens:
        parts = [self._window(chunk_TF[None], final=final) for chunk_TF in chunks]
        if not parts:
            return no_tokens(self._partial_1D.device)
        return StreamedTokens(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _window(self, features_1TF: Tensor, *, final: bool) -> StreamedTokens:
        first = self._frames - self.config.look_ahead
        self._frames += features_1TF.shape[1]
        if self._frames == 0:  # not one whole window of samples arrived
            return no_tokens(features_1TF.device)
        start = self._frames - features_1TF.shape[1] + 1
        embedded = self.model.encoder.embed(features_1TF, start=start)
        window_1TF = torch.cat([self._seen_ahead, embedded], dim=1)
        if not final:
            self._seen_ahead = window_1TF[:, window_1TF.shape[1] - self.config.look_ahead :]
        h_1TD = self._encode(window_1TF)
        embeddings_1ND, frames_N = self._fire(h_1TD, final=final)
        if embeddings_1ND.shape[1] == 0:
            return no_tokens(h_1TD.device)
        hidden_1ND = self._decode(embeddings_1ND, h_1TD)
        return read_out(self.model, hidden_1ND[0], frames_N + first)

    def _encode(self, x_1TF: Tensor) -> Tensor:
        keep = self.config.encoder_look_back * self.config.chunk
        for i, layer in enumerate(self.model.encoder.layers()):

            def recall(k: Tensor, v: Tensor, i: int = i) -> tuple[Tensor, Tensor, None]:
                keys, values = joined(self._encoder_caches[i], k, v)
                # Frames looked ahead at come again as current frames: they are not kept.
                end = keys.shape[1] - self.config.look_ahead
                at = slice(max(end - keep, 0), max(end, 0))
                self._encoder_caches[i] = (keys[:, at], values[:, at])
                return keys, values, None

            x_1TF = encoder_layer(layer, x_1TF, None, recall)
        out: Tensor = self.model.encoder.after_norm(x_1TF)
        return out

    def _fire(self, h_1TD: Tensor, *, final: bool) -> tuple[Tensor, Tensor]:
        """Embeddings of the tokens that the window completes, and the window's firing frames."""
        if final:
            alphas_1T = last_alphas(self.model, h_1TD)
            h_1TD = F.pad(h_1TD, (0, 0, 0, 1))
        else:
            alphas_1T = current_alphas(self.model, h_1TD, self.config)
            h_1TD = h_1TD[:, : self.config.chunk]
        # The integral so far stands in front as one frame, whose share is the partial token.
        integral = torch.cat([self._integral, alphas_1T.double()], dim=1).cumsum(1)
        done, now = (int(x) for x in integral[0, [0, -1]].floor())
        shares = fire_shares(integral - done, torch.tensor([now - done + 1]))[..., 1:]
        tokens_1ND = shares.to(h_1TD.dtype) @ h_1TD
        tokens_1ND[:, 0] += self._partial_1D
        self._integral = integral[:, -1:]
        self._partial_1D = tokens_1ND[:, -1]
        return tokens_1ND[:, :-1], firing_frames(integral, done, now) - 1

    def _decode(self, x_1ND: Tensor, h_1TD: Tensor) -> Tensor:
        keep = self.config.decoder_look_back * self.config.chunk
        for i, layer in enumerate(self.model.decoder.layers()):

            def remember(t_1ND: Tensor, i: int = i) -> Tensor:
                past = torch.cat([self._memories[i], t_1ND], dim=1)
                self._memories[i] = past[:, t_1ND.shape[1] :]
                return past

            def recall(k: Tensor, v: Tensor, i: int = i) -> tuple[Tensor, Tensor, None]:
                keys, values = joined(self._decoder_caches[i], k, v)
                start = max(keys.shape[1] - keep, 0)
                self._decoder_caches[i] = (keys[:, start:], values[:, start:])
                return keys, values, None

            s_1ND = token_memory(layer, x_1ND, remember)
            x_1ND = cross_attention(layer, s_1ND, h_1TD, recall)
        return finished(self.model, x_1ND)


@torch.inference_mode()
def chunked_reference(
    model: Paraformer, features_TF: Tensor, config: StreamingConfig | None = None
) -> StreamedTokens:
    """What a stream gives for a whole recording, computed in one pass over all windows at once.

    Args:
        features_TF: normalised features of the whole recording.
    """
    config = config or StreamingConfig()
    if len(features_TF) == 0:
        return no_tokens(features_TF.device)
    x_WTF, valid_WT = all_windows(model, features_TF, config)
    windows = len(x_WTF)
    keep = config.encoder_look_back * config.chunk

    def recall(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, seen_WK = looked_back(k[:, : config.chunk], config.chunk, keep)
        values, _ = looked_back(v[:, : config.chunk], config.chunk, keep)
        mask_WK = torch.cat([seen_WK, valid_WT], dim=1)
        return torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1), mask_WK

    for layer in model.encoder.layers():
        x_WTF = encoder_layer(layer, x_WTF, valid_WT, recall)
    h_WTD = model.encoder.after_norm(x_WTF)

    # All current frames in a row, then the last window's look-ahead and the tail.
    last = int(valid_WT[-1].sum())
    alphas = [last_alphas(model, h_WTD[-1:, :last])]
    if windows > 1:
        alphas.insert(0, current_alphas(model, h_WTD[:-1], config))
    flat_TD = torch.cat(
        [h_WTD[:-1, : config.chunk].flatten(0, 1), F.pad(h_WTD[-1, :last], (0, 0, 0, 1))]
    )
    integral = torch.cat(alphas, dim=1).double().cumsum(1)
    tokens = int(integral[0, -1].floor())
    if tokens == 0:
        return no_tokens(features_TF.device)
    embeddings_1ND = fire_shares(integral, torch.tensor([tokens])).to(flat_TD.dtype) @ flat_TD
    frames_N = firing_frames(integral, 0, tokens)
    window_N = (frames_N // config.chunk).clamp(max=windows - 1)
    hidden_1ND = _decode_all(model, embeddings_1ND, h_WTD, valid_WT, window_N, config)
    return read_out(model, hidden_1ND[0], frames_N - config.look_ahead)


def _decode_all(
    model: Paraformer,
    x_1ND: Tensor,
    h_WTD: Tensor,
    valid_WT: Tensor,
    window_N: Tensor,
    config: StreamingConfig,
) -> Tensor:
    # Windows without tokens do not exist for the decoder.
    used_W, window_N, counts_W = torch.unique(window_N, return_inverse=True, return_counts=True)
    h_WTD, valid_WT = h_WTD[used_W], valid_WT[used_W]
    slot_N = torch.cat([torch.arange(int(n), device=x_1ND.device) for n in counts_W])
    keep = config.decoder_look_back * config.chunk

    def recall(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, seen_WK = looked_back(k, k.shape[1], keep)
        values, _ = looked_back(v, v.shape[1], keep)
        mask_WK = torch.cat([seen_WK, valid_WT], dim=1)
        return torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1), mask_WK

    kernel = model.config.decoder.kernel
    for layer in model.decoder.layers():
        s_1ND = token_memory(layer, x_1ND, lambda t: F.pad(t, (0, 0, kernel - 1, 0)))
        s_WND = s_1ND.new_zeros(len(used_W), int(counts_W.max()), s_1ND.shape[-1])
        s_WND[window_N, slot_N] = s_1ND[0]
        x_1ND = cross_attention(layer, s_WND, h_WTD, recall)[window_N, slot_N][None]
    return finished(model, x_1ND)


def all_windows(
    model: Paraformer, features_TF: Tensor, config: StreamingConfig
) -> tuple[Tensor, Tensor]:
    """Embedded features as windows [W, chunk + look_ahead, F], and which frames exist."""
    frames, size = len(features_TF), config.chunk + config.look_ahead
    windows = frames // config.chunk + 1
    embedded = model.encoder.embed(features_TF[None])
    behind = windows * config.chunk - frames
    padded = F.pad(embedded, (0, 0, config.look_ahead, behind))
    x_WTF = padded[0].unfold(0, size, config.chunk).transpose(1, 2)
    valid_WT = torch.ones(x_WTF.shape[:2], dtype=torch.bool, device=x_WTF.device)
    valid_WT[-1, size - behind :] = False
    return x_WTF, valid_WT


def encoder_layer(
    layer: SanmEncoderLayer, x_WTD: Tensor, valid_WT: Tensor | None, recall: Recall
) -> Tensor:
    """One encoder layer over windows whose attention also sees what `recall` adds."""
    attn = layer.self_attn
    q, k, v = attn.linear_q_k_v(layer.norm1(x_WTD)).chunk(3, dim=-1)
    keys, values, mask = recall(k, v)
    h_WTD = attn.linear_out(attn.attend(q, keys, values, mask)) + attn.fsmn_block(v, valid_WT)
    x_WTD = x_WTD + h_WTD if layer.residual else h_WTD
    out: Tensor = x_WTD + layer.feed_forward(layer.norm2(x_WTD))
    return out


def token_memory(
    layer: DecoderLayer, x_1ND: Tensor, remember: Callable[[Tensor], Tensor]
) -> Tensor:
    """The first half of a decoder layer; `remember` puts kernel - 1 earlier inputs in front."""
    t_1ND: Tensor = layer.norm2(layer.feed_forward(layer.norm1(x_1ND)))
    memory: FsmnMemory = layer.self_attn.fsmn_block
    return x_1ND + memory.convolve(remember(t_1ND), left=0, right=0) + t_1ND


def cross_attention(layer: DecoderLayer, s_WND: Tensor, h_WTD: Tensor, recall: Recall) -> Tensor:
    """The second half of a decoder layer, over keys and values of `h_WTD` and what is recalled."""
    if layer.src_attn is None:
        return s_WND
    k, v = layer.src_attn.linear_k_v(h_WTD).chunk(2, dim=-1)
    out: Tensor = s_WND + layer.src_attn.attend(layer.norm3(s_WND), *recall(k, v))
    return out


def current_alphas(model: Paraformer, h_WTD: Tensor, config: StreamingConfig) -> Tensor:
    """CIF weights of the windows' current frames, in a row [1, W * chunk]."""
    return model.predictor.alphas(h_WTD)[:, : config.chunk].reshape(1, -1)


def last_alphas(model: Paraformer, h_1TD: Tensor) -> Tensor:
    """CIF weights of the recording's last window, all of its frames and the tail [1, T + 1]."""
    alphas_1T: Tensor = model.predictor.alphas(h_1TD)
    return F.pad(alphas_1T, (0, 1), value=model.predictor.config.tail_threshold)


def firing_frames(integral_1T: Tensor, done: int, now: int) -> Tensor:
    """Index of the frame in which the integral reaches done + 1, ..., now."""
    wanted = torch.arange(done + 1, now + 1, device=integral_1T.device, dtype=torch.float64)
    return torch.searchsorted(integral_1T[0], wanted)


def looked_back(x_WTD: Tensor, step: int, keep: int) -> tuple[Tensor, Tensor]:
    """For each window the last `keep` frames of the windows before it [W, keep, D], and a mask."""
    windows = len(x_WTD)
    device = x_WTD.device
    index_WK = torch.arange(windows, device=device)[:, None] * step + torch.arange(
        -keep, 0, device=device
    )
    flat = x_WTD.reshape(windows * step, -1)
    return flat[index_WK.clamp(min=0)], index_WK >= 0


def joined(cache: KeysValues | None, k: Tensor, v: Tensor) -> KeysValues:
    """Cached keys and values in front of new ones."""
    if cache is None:
        return k, v
    return torch.cat([cache[0], k], dim=1), torch.cat([cache[1], v], dim=1)


def finished(model: Paraformer, x_1ND: Tensor) -> Tensor:
    """The decoder's last layer and norm."""
    out: Tensor = model.decoder.after_norm(model.decoder.decoders3[0](x_1ND))
    return out


def read_out(model: Paraformer, hidden_ND: Tensor, frames_N: Tensor) -> StreamedTokens:
    """Most probable tokens of hidden states."""
    best, ids = model.decoder.output_layer(hidden_ND).float().softmax(-1).max(-1)
    return StreamedTokens(ids, best, frames_N)


def no_tokens(device: torch.device) -> StreamedTokens:
    """An empty result."""
    ids = torch.zeros(0, dtype=torch.int64, device=device)
    return StreamedTokens(ids, torch.zeros(0, device=device), ids)
