"""Simulated series to train a forecaster on: trend + seasons + autoregressive noise + level shifts.

Every series is a function of its seed. The components and their sizes are drawn anew for each one;
the prior is wide on purpose, since a model can only handle what it has seen of:

| component | drawn |
|---|---|
| season | 1 (none), 4, 7, 12, 24, 52, 96, 168, 288; up to 5 harmonics, or a profile with peaks |
| hidden cycle | a period that the season does not tell, sometimes |
| second season | seven of the first, sometimes |
| change of the season | its amplitude drifts as a random walk, sometimes |
| trend | none, linear, piecewise linear, a random walk, a damped slope |
| noise | AR(1) to AR(3), stationary; Gaussian or Student-t; its size rises and falls, sometimes |
| level shifts | a few jumps, sometimes |
| outliers | single values, sometimes |
| scale | additive, multiplicative (exponential), counts, or cut off at 0 |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqgen.seeds import item_seed

Floats = NDArray[np.float64]

SEASONS = (1, 1, 1, 4, 7, 12, 12, 24, 24, 52, 96, 168, 288)
"""Lengths of seasons; one that is named more often is drawn more often."""


@dataclass(frozen=True)
class Simulated:
    """A simulated series: values [N], and the steps of its season (1: none)."""

    y: Floats
    season: int


def simulate_many(count: int, *, seed: int, longest: int = 1200) -> Iterator[Simulated]:
    """Series number 0..count-1 of a seed."""
    for number in range(count):
        yield simulate(item_seed(seed, f"series {number}"), longest=longest)


def simulate(seed: int, *, longest: int = 1200) -> Simulated:
    """One series of 60 to `longest` values.

    Args:
        seed: everything is drawn from it.
        longest: of seasonal series at least four seasons, whatever this says.
    """
    rng = np.random.default_rng(seed)
    season = int(rng.choice(SEASONS))
    shortest = max(60, 4 * season)
    length = int(np.exp(rng.uniform(np.log(shortest), np.log(max(longest, shortest + 1)))))
    noise = _noise(rng, length)
    parts = _trend(rng, length) + _seasons(rng, length, season) + _shifts(rng, length)
    y = _scaled(rng, parts + noise * np.exp(rng.uniform(-3.0, 0.5)))
    if rng.random() < 0.15:
        hit = rng.random(length) < rng.uniform(0.002, 0.02)
        y = y + hit * rng.normal(scale=5.0 * y.std() + 1e-9, size=length)
    size, level = np.exp(rng.normal(scale=3.0)), rng.normal(scale=10.0)
    return Simulated(np.asarray(size * (y + level)), season)


def _noise(rng: np.random.Generator, length: int) -> Floats:
    """Autoregressive noise of unit variance."""
    from scipy.signal import lfilter

    run_in = 100
    if rng.random() < 0.3:
        degrees = rng.uniform(3.0, 8.0)
        shocks = rng.standard_t(degrees, size=run_in + length)
    else:
        shocks = rng.normal(size=run_in + length)
    # Poles inside the unit circle: a real one, or a pair, or both.
    polynomial = np.array([1.0])
    kind = rng.integers(4)
    if kind in (1, 3):
        polynomial = np.convolve(polynomial, [1.0, -rng.uniform(-0.5, 0.98)])
    if kind in (2, 3):
        radius, angle = rng.uniform(0.3, 0.97), rng.uniform(0.05, np.pi)
        polynomial = np.convolve(polynomial, [1.0, -2 * radius * np.cos(angle), radius**2])
    noise = lfilter([1.0], polynomial, shocks)[run_in:]
    if rng.random() < 0.2:
        wave = np.sin(2 * np.pi * (np.arange(length) / rng.uniform(20, length) + rng.random()))
        noise = noise * np.exp(rng.uniform(0.2, 1.0) * wave)
    return np.asarray(noise / (noise.std() + 1e-9))


def _trend(rng: np.random.Generator, length: int) -> Floats:
    time = np.arange(length) / length
    kind = rng.choice(5, p=[0.25, 0.2, 0.15, 0.25, 0.15])
    size = np.exp(rng.uniform(-1.5, 1.5))
    if kind == 0:
        return np.zeros(length)
    if kind == 1:
        return np.asarray(size * rng.normal() * time)
    if kind == 2:
        bends = np.sort(rng.random(rng.integers(1, 5)))
        slopes = rng.normal(size=len(bends) + 1)
        hinges = sum(
            (slope * np.maximum(time - bend, 0.0))
            for slope, bend in zip(slopes[1:], bends, strict=True)
        )
        return np.asarray(size * (slopes[0] * time + hinges))
    if kind == 3:
        walk = np.cumsum(rng.normal(size=length))
        return np.asarray(size * walk / np.sqrt(length))
    damping = rng.uniform(0.8, 0.995)
    from scipy.signal import lfilter

    slope = lfilter([1.0], [1.0, -damping], rng.normal(size=length))
    walk = np.cumsum(slope) * (1.0 - damping)
    return np.asarray(size * walk / np.sqrt(length))


def _seasons(rng: np.random.Generator, length: int, season: int) -> Floats:
    if season == 1:
        if rng.random() < 0.7:
            return np.zeros(length)
        return _season(rng, length, int(rng.integers(5, 31)))
    found = _season(rng, length, season)
    if rng.random() < 0.3 and length > 21 * season:
        found = found + rng.uniform(0.2, 1.0) * _season(rng, length, 7 * season)
    return found


def _season(rng: np.random.Generator, length: int, season: int) -> Floats:
    """A profile of unit variance that repeats, its amplitude perhaps drifting."""
    time = np.arange(season)
    if rng.random() < 0.65:
        profile = np.zeros(season)
        for harmonic in range(1, int(rng.integers(1, 6)) + 1):
            phase = rng.uniform(0, 2 * np.pi)
            profile += (
                rng.normal() / harmonic * np.sin(2 * np.pi * harmonic * time / season + phase)
            )
    else:
        profile = rng.normal(size=season) * (rng.random(season) < rng.uniform(0.1, 0.9))
        width = max(1, season // 12)
        kernel = np.ones(width) / width
        profile = np.convolve(np.concatenate([profile, profile]), kernel, "full")[season:][:season]
    profile = (profile - profile.mean()) / (profile.std() + 1e-6)
    repeats = -(-length // season)
    found = np.tile(profile, repeats)[:length]
    if rng.random() < 0.4:
        drift = np.cumsum(rng.normal(size=repeats)) * rng.uniform(0.02, 0.15)
        found = found * np.exp(np.repeat(drift, season)[:length].clip(-1.5, 1.5))
    return np.asarray(np.exp(rng.uniform(-1.0, 1.0)) * found)


def _shifts(rng: np.random.Generator, length: int) -> Floats:
    if rng.random() < 0.75:
        return np.zeros(length)
    jumps = np.zeros(length)
    places = rng.integers(0, length, size=rng.integers(1, 4))
    jumps[places] = rng.normal(scale=np.exp(rng.uniform(-1.0, 1.0)), size=len(places))
    return np.asarray(np.cumsum(jumps))


def _scaled(rng: np.random.Generator, y: Floats) -> Floats:
    kind = rng.choice(4, p=[0.65, 0.2, 0.1, 0.05])
    if kind == 0:
        return y
    y = (y - y.mean()) / (y.std() + 1e-9)
    if kind == 1:
        return np.asarray(np.exp(rng.uniform(0.1, 0.6) * y))
    if kind == 2:
        return np.asarray(rng.poisson(np.exp((rng.uniform(0.2, 0.8) * y).clip(-4, 4)) * rng.choice(
            [0.5, 3.0, 30.0]
        )).astype(np.float64))  # fmt: skip
    return np.asarray(np.maximum(y - rng.uniform(-1.5, 0.5), 0.0))
