"""Runs inside statsmodels' own environment: what AutoReg fits to series in a file.

    .peers/statsmodels/bin/python tests/parity/autoreg_reference.py SERIES.npz OUT.json

SERIES.npz holds the series by name; a name is `LABEL@LAGS`. OUT.json gets of each the coefficients
(intercept first), their standard errors with the unbiased variance, AIC, BIC and the RMSE. A series
`LABEL@order@LAGS` gets the orders that ar_select_order chooses up to LAGS.

Imports nothing of seqgen.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import statsmodels
from statsmodels.tsa.ar_model import AutoReg, ar_select_order


def main(source: Path, destination: Path) -> None:
    warnings.simplefilter("ignore")  # AutoReg warns of singular systems
    found: dict[str, object] = {"statsmodels": statsmodels.__version__}
    with np.load(source) as file:
        for name in file.files:
            lags = int(name.rsplit("@", 1)[1])
            if "@order@" in name:
                found[name] = orders(file[name], lags)
            else:
                found[name] = fit(file[name], lags)
    destination.write_text(json.dumps(found))


def fit(y: np.ndarray, lags: int) -> dict[str, object]:
    made = AutoReg(y, lags=lags, trend="c").fit(use_t=True)
    errors = y[lags:] - made.fittedvalues
    return {
        "params": made.params.tolist(),
        "bse": made.bse.tolist(),
        "aic": float(made.aic),
        "bic": float(made.bic),
        "rmse": float(np.sqrt(np.mean(np.square(errors)))),
    }


def orders(y: np.ndarray, lags: int) -> dict[str, int]:
    chosen = {}
    for criterion in ("aic", "bic"):
        best = ar_select_order(y, maxlag=lags, ic=criterion, trend="c").ar_lags
        chosen[criterion] = max(best) if best else 0
    return chosen


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
