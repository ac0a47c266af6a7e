"""How tables are read: names of columns, frequency, and what happens to values that are missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seqgen.errors import ConfigError
from seqgen_time_series.columns import Layout

Missing = Literal["error", "interpolate", "cut", "drop", "keep"]
Duplicates = Literal["error", "first", "last", "mean"]


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """How tables are read.

    Attributes:
        id_column, time_column, value_column: names; "" finds them (see `columns`).
        layout: `long`, `single`, `wide`, or `auto`.
        past: exogenous columns known up to the last value.
        future: exogenous columns known beyond it too.
        future_table: a file with the id and time columns and the future ones; "" for none.
        horizon: steps beyond the last value for which `future` must be known.
        frequency: pandas' alias; "" infers it, series by series.
        season: steps of a season; 0 takes the usual one of the frequency, and 1 for series that do
            not hold two of them.
        missing: what happens to missing values and times: `error`; `interpolate` linearly between
            neighbours (`Series.interpolated` marks them; a beginning or end without values is cut
            off); `cut` all before the last hole; `drop` them, as if the times left followed one
            another; `keep` them as NaN.
        duplicates: of two values of one time: `error`, the `first`, the `last`, or their `mean`.
        shortest: values that a series must have.
        time_format: of times as text, for `strptime`; "" takes ISO 8601 and what is unambiguous.
        separator: of CSV columns; "" tells it from the first line.
        decimal: the decimal point of CSV files.
    """

    id_column: str = ""
    time_column: str = ""
    value_column: str = ""
    layout: Layout = "auto"
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    future_table: str = ""
    horizon: int = 0
    frequency: str = ""
    season: int = 0
    missing: Missing = "error"
    duplicates: Duplicates = "error"
    shortest: int = 1
    time_format: str = ""
    separator: str = ""
    decimal: str = "."

    def __post_init__(self) -> None:
        for name, least in (("horizon", 0), ("season", 0), ("shortest", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", fix=f"a whole number of {least} or more"
                )
        if len(self.decimal) != 1 or len(self.separator) > 1:
            raise ConfigError(
                f"decimal is {self.decimal!r} and separator {self.separator!r}",
                fix="one character each, such as --set decimal=, --set 'separator=;'",
            )
        if self.future_table and not self.future:
            raise ConfigError(
                "a table of future columns was given, but no names of such columns",
                fix="name them: --set future=COLUMN,COLUMN",
            )
