"""Pictures: a forecast with its history, how metrics come about, an autoregression's lags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqgen.plots import COLOURS, GRID, INK, dress, picture_bytes
from seqgen_time_series.scoring import Case, Judged, judge, pairs_of, summary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from seqgen_time_series.linear.fitted import FittedAR
    from seqgen_time_series.series import Series

HISTORY, FORECAST, NAIVE = INK, COLOURS[0], COLOURS[1]
MOST_POINTS = 4000
"""Points drawn of a long history; each of a wider stretch becomes its lowest and highest value."""


def forecast_plot(row: Mapping[str, Any], series: Series, *, history: int = 0) -> bytes:
    """A PNG: the end of the history, the forecast with its intervals, seasonal naive.

    Where the series goes on behind the cutoff, its own values are drawn too.

    Args:
        row: an output row (see `formats`); of several cutoffs each is drawn.
        series: its series.
        history: values drawn before the first cutoff; 0 for four horizons or seasons.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots()
    dated = np.issubdtype(series.ds.dtype, np.datetime64)
    ds = _times(row["ds"], dated)
    given = row["cutoff"]
    cutoff = _times(given if isinstance(given, list | tuple) else [given], dated)
    cutoff = np.broadcast_to(cutoff, ds.shape)
    cuts = np.unique(cutoff)

    first = int(np.searchsorted(series.ds, cuts[0])) + 1
    shown = history or 4 * max(int((cutoff == cuts[0]).sum()), series.season, 8)
    start = max(0, first - shown)
    stop = int(np.searchsorted(series.ds, ds.max(), side="right"))
    x, y = _thinned(series.ds[start:stop], series.y[start:stop])
    alone = "o" if len(x) == 1 else ""  # one point makes no line
    axes.plot(x, y, color=HISTORY, linewidth=1.2, marker=alone, label="history", zorder=3)
    for number, cut in enumerate(cuts):
        own = np.flatnonzero(cutoff == cut)
        last = min(int(np.searchsorted(series.ds, cut)), len(series.y) - 1)
        _draw_forecast(axes, row, own, ds, cut, float(series.y[last]), labelled=number == 0)
        axes.axvline(cut, color=GRID, linewidth=1.0, zorder=1)
    dress(axes, "", "")
    if dated:
        _date_axis(axes)
    axes.margins(x=0.01)
    figure.suptitle(_title(row, series), color=INK, fontsize=10)
    # Outside: data may be anywhere inside.
    figure.legend(loc="outside lower center", ncols=12, frameon=False, fontsize=8)
    return picture_bytes(figure, "png")


def metrics_chart(cases: Sequence[Case], *, format: str = "png", title: str = "") -> bytes:
    """Metrics over those of seasonal naive, how they spread over series, and reliability.

    Args:
        cases: forecasts with what came.
        format: `png`, `svg` or `pdf`.

    Raises:
        InputError: as `scoring.judge`.
    """
    from matplotlib.figure import Figure

    judged = judge(cases)
    figure = Figure(figsize=(12, 4), layout="constrained")
    bars, spread, reliability = figure.subplots(1, 3, width_ratios=(3, 4, 3.4))
    found = summary(judged)
    _draw_bars(bars, found)
    _draw_spread(spread, judged, found)
    _draw_reliability(reliability, judged)
    count, windows = int(found["series"]), int(found["windows"])
    figure.suptitle(f"{title + ': ' if title else ''}{count} series, {windows} windows",
                    color=INK, fontsize=11)  # fmt: skip
    return picture_bytes(figure, format)


def lag_plot(
    fitted: FittedAR, *, step: int = 0, level: float = 0.95, format: str = "png", title: str = ""
) -> bytes:
    """The coefficients of a linear autoregression by lag, with intervals from standard errors.

    Args:
        fitted: a linear model, with regressors or without.
        step: of the horizon, from 0.
        level: of the intervals, Gaussian; drawn where there are standard errors.
        format: `png`, `svg` or `pdf`.

    Raises:
        UsageError: the model is not linear.
    """
    from statistics import NormalDist

    from matplotlib.figure import Figure

    z = NormalDist().inv_cdf(0.5 + level / 2)
    panels: dict[str, tuple[Any, Any]] = {
        "y": (fitted.coefficients[step], _row(fitted.standard_errors, step))
    }
    errors = fitted.regressor_standard_errors
    for name, coefficients in fitted.regressor_coefficients.items():
        panels[name] = coefficients[step], _row(errors.get(name), step)
    figure = Figure(figsize=(9, 0.8 + 2.8 * len(panels)), layout="constrained")
    for axes, (name, (coefficients, error)) in zip(
        figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True
    ):
        _draw_lags(axes, coefficients, None if error is None else z * error, level)
        dress(axes, f"lag of {_plain(name)} (steps)", "coefficient")
    facts = [
        f"intercept {fitted.intercept[step]:.4g}",
        f"sigma {fitted.sigma[step]:.4g}",
        f"{fitted.rows} rows",
        f"solver {fitted.solver}",
        f"penalty {fitted.penalty}",
    ]
    if fitted.horizon > 1:
        facts.insert(0, f"step {step + 1} of {fitted.horizon}")
    figure.suptitle("\n".join(filter(None, [_plain(title), ", ".join(facts)])), color=INK,
                    fontsize=10)  # fmt: skip
    return picture_bytes(figure, format)


def _draw_forecast(
    axes: Any, row: Mapping[str, Any], own: Any, ds: Any, cut: Any, last: float, *, labelled: bool
) -> None:
    """Bands, the point forecast and seasonal naive, joined to the last value of the history."""
    x = np.concatenate([[cut], ds[own]])

    def joined(values: Sequence[float]) -> NDArray[np.float64]:
        return np.concatenate([[last], np.array(values, np.float64)[own]])

    def label(text: str) -> str | None:
        return text if labelled else None

    by_level = {float(key): values for key, values in (row.get("quantiles") or {}).items()}
    levels = sorted(by_level)
    bands = pairs_of(levels)
    for place, (low, high, share) in enumerate(bands):  # the widest first, the palest
        axes.fill_between(x, joined(by_level[levels[low]]), joined(by_level[levels[high]]),
                          color=FORECAST, alpha=0.12 + 0.16 * (place + 1) / len(bands),
                          linewidth=0, zorder=2, label=label(f"{100 * share:g} %"))  # fmt: skip
    axes.plot(x, joined(row["forecast"]), color=FORECAST, linewidth=1.8, zorder=5,
              label=label("forecast"))  # fmt: skip
    if row.get("naive"):
        axes.plot(x[1:], np.array(row["naive"], np.float64)[own], color=NAIVE, linewidth=1.2,
                  linestyle="--", zorder=4, label=label("seasonal naive"))  # fmt: skip


def _draw_bars(axes: Any, found: Mapping[str, float]) -> None:
    names = [name for name in ("relative_mase", "relative_wql", "owa") if name in found]
    labels = {"relative_mase": "MASE", "relative_wql": "WQL", "owa": "OWA\n(over Naive2)"}
    values = [found[name] for name in names]
    bars = axes.barh(range(len(names)), values, height=0.55, zorder=3,
                     color=[FORECAST if value < 1 else NAIVE for value in values])  # fmt: skip
    axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=3, color=INK, fontsize=9)
    axes.axvline(1, color=INK, linewidth=1.0, linestyle="--", zorder=4)
    axes.set_yticks(range(len(names)), [labels[name] for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max([1.0, *values]))
    dress(axes, "over seasonal naive (below 1 is better)", "")


def _draw_spread(axes: Any, judged: Judged, found: Mapping[str, float]) -> None:
    """MASE of every series against seasonal naive's."""
    own, naive = judged.by_series("mase"), judged.by_series("mase_naive")
    there = np.isfinite(own) & np.isfinite(naive) & (own > 0) & (naive > 0)
    own, naive = own[there], naive[there]
    if len(own):
        reach = np.array([min(own.min(), naive.min()) / 1.3, max(own.max(), naive.max()) * 1.3])
        axes.plot(reach, reach, color=INK, linewidth=1.0, linestyle="--")
        axes.scatter(naive, own, s=22, color=np.where(own < naive, FORECAST, NAIVE), alpha=0.7,
                     linewidths=0, zorder=3)  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            _plain_ticks(axis)
        axes.set_xlim(reach)
        axes.set_ylim(reach)
        better = float((own < naive).mean())
        axes.set_title(f"better for {better:.0%} of the series", color=INK, fontsize=9)
    dress(axes, "MASE of seasonal naive", "MASE of the forecast")


def _draw_reliability(axes: Any, judged: Judged) -> None:
    """Share of the values below each quantile against its level."""
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1.0, linestyle="--", label="calibrated")
    if judged.levels:
        share_K = np.nanmean(judged.below_CK, axis=0)
        axes.plot(judged.levels, share_K, color=FORECAST, marker="o", markersize=4, zorder=3,
                  label="quantiles")  # fmt: skip
        inside = [
            (share, float(np.nanmean(judged.by_series(f"coverage_{100 * share:g}"))))
            for _, _, share in pairs_of(judged.levels)
        ]
        axes.plot(*np.array(inside).T.reshape(2, -1), linestyle="none", color=COLOURS[2],
                  marker="D", markersize=5, zorder=4, label="intervals")  # fmt: skip
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    dress(axes, "level promised", "share of the values that hold")


def _draw_lags(axes: Any, coefficients: Any, reach: Any, level: float) -> None:
    lags = np.arange(1, len(coefficients) + 1)
    axes.axhline(0, color=INK, linewidth=0.8)
    if len(lags) > 120:  # one line is read more easily than many thin ones
        axes.plot(lags, coefficients, color=FORECAST, linewidth=1.0, zorder=3)
    else:
        axes.vlines(lags, 0, coefficients, color=FORECAST, linewidth=min(4.0, 240 / len(lags)),
                    zorder=2)  # fmt: skip
    if reach is not None and np.isfinite(reach).any():
        if len(lags) > 120:
            axes.fill_between(lags, coefficients - reach, coefficients + reach, color=FORECAST,
                              alpha=0.25, linewidth=0, label=f"{100 * level:g} %")  # fmt: skip
        else:
            axes.errorbar(lags, coefficients, yerr=reach, fmt="none", ecolor=INK, elinewidth=1.0,
                          capsize=min(3.0, 120 / len(lags)), zorder=4,
                          label=f"{100 * level:g} % interval")  # fmt: skip
        axes.legend(frameon=False, fontsize=8)
    if len(lags) <= 24:
        axes.set_xticks(lags)


def _thinned(x: Any, y: Any) -> tuple[Any, Any]:
    """A long line by its lowest and highest values, so that no spike is lost."""
    if len(y) <= MOST_POINTS:
        return x, y
    size = -(-len(y) // (MOST_POINTS // 2))
    whole = len(y) // size * size
    blocks = np.where(np.isnan(y[:whole]), 0.0, y[:whole]).reshape(-1, size)
    first = np.arange(len(blocks)) * size
    chosen = np.unique(
        np.concatenate([first + blocks.argmin(1), first + blocks.argmax(1), [0, len(y) - 1]])
    )
    return x[chosen], y[chosen]


def _title(row: Mapping[str, Any], series: Series) -> str:
    facts = [str(row.get("model") or ""), str(row.get("decoder") or "")]
    if series.frequency:
        facts.append(f"frequency {series.frequency}")
    if series.season > 1:
        facts.append(f"season {series.season}")
    return f"{_plain(series.unique_id)}\n{', '.join(filter(None, facts))}".rstrip()


def _times(values: Sequence[Any], dated: bool) -> Any:
    return np.array(values, dtype="datetime64[ns]" if dated else np.int64)


def _row(values: Any, step: int) -> Any:
    return None if values is None else values[step]


def _plain_ticks(axis: Any) -> None:
    """0.5, 1, 2 on a logarithmic axis, where matplotlib would write powers."""
    from matplotlib import ticker

    untyped: Any = ticker
    axis.set_major_locator(untyped.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(untyped.FormatStrFormatter("%g"))
    axis.set_minor_formatter(untyped.NullFormatter())


def _date_axis(axes: Any) -> None:
    from matplotlib import dates

    untyped: Any = dates
    locator = untyped.AutoDateLocator(minticks=4, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(untyped.ConciseDateFormatter(locator))


def _plain(text: str) -> str:
    # matplotlib would read what stands between two dollars as a formula
    return " ".join(text.split()).replace("$", r"\$")
