"""Makes the example that the plugin ships: five public-domain series of statsmodels' data sets.

    python -m seqgen_time_series.make_example FOLDER -o example.csv

FOLDER holds co2.csv, macrodata.csv, nile.csv and sunspots.csv as statsmodels has them
(`statsmodels/datasets/*/`); each is marked public domain in its `data.py`. Nothing is chosen by how
well a model does.

    co2            monthly means of the weekly values, from the month after the last one without any
    nile           flow at Aswan, yearly
    real_gdp       quarterly
    sunspots       yearly
    unemployment   quarterly
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from seqgen_time_series.readers import list_series
from seqgen_time_series.table_config import TableConfig

_SERIES = (
    ("nile.csv", "volume", "nile"),
    ("macrodata.csv", "realgdp", "real_gdp"),
    ("sunspots.csv", "SUNACTIVITY", "sunspots"),
    ("macrodata.csv", "unemp", "unemployment"),
)


def make_example(folder: Path) -> Any:
    """The table: unique_id, ds, y."""
    import pandas as pd

    parts = [_monthly(folder / "co2.csv")]
    for file, column, name in _SERIES:
        series = {s.unique_id: s for s in list_series(str(folder / file))}[column]
        parts.append(pd.DataFrame({"unique_id": name, "ds": series.ds, "y": series.y}))
    return pd.concat(parts, ignore_index=True)


def _monthly(path: Path) -> Any:
    import pandas as pd

    (weekly,) = list_series(str(path), TableConfig(missing="keep"))
    values = pd.Series(weekly.y, index=pd.DatetimeIndex(weekly.ds))
    means = values.resample("MS").mean()
    empty = np.flatnonzero(means.isna())
    means = means.iloc[int(empty[-1]) + 1 if len(empty) else 0 :].round(3)
    return pd.DataFrame({"unique_id": "co2", "ds": means.index, "y": means.to_numpy()})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the data sets as CSV files")
    parser.add_argument("-o", "--output", type=Path, required=True)
    chosen = parser.parse_args()
    table = make_example(chosen.folder)
    table.to_csv(chosen.output, index=False, date_format="%Y-%m-%d", lineterminator="\n")


if __name__ == "__main__":
    main()
