"""What is given to a fit, as arrays [K, N] of finite numbers: the target, then the regressors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from seqgen.errors import InputError
from seqgen_time_series.linear.gram import Floats, Layout


def arrange(
    series: Sequence[ArrayLike],
    regressors: Sequence[Mapping[str, ArrayLike]],
    names: Sequence[str],
    layout: Layout,
) -> list[Floats]:
    """One array [K, N] a series.

    Args:
        series: the targets.
        regressors: those of every series, by name.
        names: the regressors in the model's order.
        layout: lags and horizon, which a series must reach.

    Raises:
        InputError: no series, one that is too short, not numeric, not finite or of another length
            than its regressors; a regressor that is missing or unknown.
    """
    if not len(series):
        raise InputError("there is no series to fit")
    if len(series) != len(regressors):
        raise InputError(f"{len(series)} series, but regressors of {len(regressors)}")
    pairs = enumerate(zip(series, regressors, strict=True))
    return [_arranged(index, y, others, names, layout) for index, (y, others) in pairs]


def _arranged(
    index: int,
    y: ArrayLike,
    others: Mapping[str, ArrayLike],
    names: Sequence[str],
    layout: Layout,
) -> Floats:
    unknown = sorted(set(others) - set(names))
    if unknown:
        raise InputError(
            f"series {index}: the model has no lags of {unknown[0]!r}",
            fix=f"ARNet(regressor_lags={{{unknown[0]!r}: 1}}), or leave it out",
        )
    rows = {"y": _vector(index, "y", y)}
    for name in names:
        if name not in others:
            raise InputError(f"series {index}: the lagged regressor {name!r} is missing")
        rows[f"regressor {name!r}"] = _vector(index, f"regressor {name!r}", others[name])
    length = len(rows["y"])
    for what, values_N in rows.items():
        if len(values_N) != length:
            raise InputError(f"series {index}: {what} has {len(values_N)} values, y has {length}")
    if length <= layout.reach:
        raise InputError(
            f"series {index} has {length} values, too few for one row of the regression",
            why=f"{max(layout.lags)} lags and a horizon of {layout.horizon} need "
            f"{layout.reach + 1}",
            fix="fewer lags, or a longer series",
        )
    return np.stack(list(rows.values()))


def _vector(index: int, what: str, values: ArrayLike) -> Floats:
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"series {index}: {what} is not numeric", why=str(error)) from error
    if found.ndim != 1:
        raise InputError(
            f"series {index}: {what} has shape {found.shape}, not one dimension",
            fix="ARNet.fit_many for several series",
        )
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise InputError(
            f"series {index}: {what} is {found[bad[0]]} at position {bad[0]} "
            f"({len(bad)} such values)",
            fix="fill or cut missing values first; nothing is filled silently",
        )
    return found
