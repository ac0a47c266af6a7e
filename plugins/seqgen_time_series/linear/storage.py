"""A fitted autoregression as one JSON object, whose numbers come back bit for bit.

Numbers that are not finite (standard errors that do not exist) are null: the text is strict JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from seqgen.errors import InputError
from seqgen_time_series.linear.gram import Floats

FORMAT = "seqgen-arnet-1"
SHAPES = {"covariance": 2, "errors": 2, "intercept_errors": 1}
FIELDS = (
    *("lags", "horizon", "regressor_lags", "layers", "rows", "solver", "penalty", "strength"),
    *("warnings", "losses", *SHAPES),
)


def dump(fields: Mapping[str, Any]) -> str:
    """The text of these fields; arrays become nested lists."""
    return json.dumps({"format": FORMAT, **_plain(fields)}, allow_nan=False)


def parse(text: str) -> dict[str, Any]:
    """The fields of a text from `dump`, its arrays as arrays.

    Raises:
        InputError: the text is not of this format, or not consistent.
    """
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise ValueError(f"the format is {found['format']!r}, not {FORMAT!r}")
        fields = {name: found[name] for name in FIELDS}
        for name, dimensions in SHAPES.items():
            if fields[name] is not None:
                fields[name] = _array(fields[name], dimensions)
        fields["layers"] = [(_array(w, 2), _array(b, 1)) for w, b in fields["layers"]]
        _check(fields)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            "this text is no autoregression written by FittedAR.to_json", why=repr(error)
        ) from error
    return fields


def _check(fields: Mapping[str, Any]) -> None:
    """The layers fit each other, the lags and the horizon."""
    width = fields["lags"] + sum(fields["regressor_lags"].values())
    for weight, bias in fields["layers"]:
        if weight.shape != (len(bias), width):
            raise ValueError(f"a layer of shape {weight.shape} after {width} inputs")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError("a weight is not a number")
        width = len(bias)
    if width != fields["horizon"]:
        raise ValueError(f"{width} outputs for a horizon of {fields['horizon']}")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _array(values: Any, dimensions: int) -> Floats:
    found = np.asarray(values, dtype=np.float64)  # null becomes NaN
    if found.ndim != dimensions:
        raise ValueError(f"an array with {found.ndim} dimensions instead of {dimensions}")
    return found
