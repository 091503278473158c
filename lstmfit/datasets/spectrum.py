"""Measured or mock spectra: frequency, temperature, weight."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lstmfit.errors import InputError, did_you_mean
from lstmfit.files import replacing

UNITS = {"K": 1000.0, "mK": 1.0}
"""Temperature units that a file may have, in mK."""

PUBLIC_FORMATS = {"edges2018": {"columns": {"frequency": 0, "weight": 1, "temperature": 2}, "unit": "K"}}
"""How to read the public spectra of `lstmfit.datasets.public`, by name."""


@dataclass(frozen=True)
class Spectrum:
    """A spectrum to fit.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,) MHz.
    temperature : numpy.ndarray
        (n,) mK.
    weight : numpy.ndarray
        (n,) non-negative; the noise variance of a channel is divided by it.
    truth : numpy.ndarray, optional
        (n,) mK, the noiseless signal of a mock.
    """

    frequency: np.ndarray
    temperature: np.ndarray
    weight: np.ndarray
    truth: np.ndarray | None = None

    def cut(self, low: float, high: float) -> "Spectrum":
        """The channels from `low` to `high` MHz.

        Raises
        ------
        InputError
            There are none.
        """
        keep = (self.frequency >= low) & (self.frequency <= high)
        if not keep.any():
            raise InputError(
                f"data: band [{low:g}, {high:g}] MHz holds no channel; the data span {self.frequency.min():.4g} to "
                f"{self.frequency.max():.4g} MHz"
            )
        truth = None if self.truth is None else self.truth[keep]
        return Spectrum(self.frequency[keep], self.temperature[keep], self.weight[keep], truth)

    def write(self, path) -> None:
        """Write a CSV with one header line that `read_spectrum` reads back."""
        columns = {"frequency_MHz": self.frequency, "temperature_mK": self.temperature, "weight": self.weight}
        if self.truth is not None:
            columns["signal_mK"] = self.truth
        with replacing(path) as temporary:
            pd.DataFrame(columns).to_csv(temporary, index=False, float_format="%.17g")


def read_spectrum(path, columns=None, unit: str = "mK") -> Spectrum:
    """Read a spectrum from a table of text.

    Parameters
    ----------
    path : path
        Columns between commas, semicolons, tabs or blanks, with or without a header line; lines that start with # are
        comments.
    columns : mapping, optional
        Where ``frequency``, ``temperature`` and, if there, ``weight`` are: column numbers from zero, or names of
        the header. Default: columns 0 and 1, no weights.
    unit : {"mK", "K"}
        Unit of the temperature.

    Returns
    -------
    Spectrum
        Channels of weight zero are left out; frequency in the file's order.

    Raises
    ------
    InputError
        No such file or column, an unknown unit, a value that is not a number, or a frequency or weight that is
        not possible.
    """
    path = Path(path)
    columns = {"frequency": 0, "temperature": 1} if columns is None else dict(columns)
    if unit not in UNITS:
        raise InputError(f"{path.name}: unit is {unit!r}; temperatures can be in K or mK")
    unknown = set(columns) - {"frequency", "temperature", "weight"}
    if unknown or not {"frequency", "temperature"} <= set(columns):
        raise InputError(f"columns are {columns}; frequency and temperature are needed, weight may be given")
    if not path.is_file():
        raise InputError(f"no data file {path}; a path is taken from the run file's own folder")
    table = _read_table(path)
    values = {}
    for what, which in columns.items():
        column = _column(path, table, which)
        values[what] = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    weight = values.get("weight", np.ones(len(table)))
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        bad = _first(~(np.isfinite(weight) & (weight >= 0)))
        raise InputError(f"{path.name}: weights must be finite and not negative; that of data row {bad + 1} is not")
    keep = weight > 0
    if not keep.any():
        raise InputError(f"{path.name}: every channel has weight zero, so there is nothing to fit; check the column")
    nu, temperature, weight = values["frequency"][keep], values["temperature"][keep], weight[keep]
    for what, array in (("frequency", nu), ("temperature", temperature)):
        if not np.isfinite(array).all():
            row = np.flatnonzero(keep)[_first(~np.isfinite(array))] + 1
            raise InputError(
                f"{path.name}: {what} is not a number in data row {row} (comments and header not counted); mend it or "
                "give it weight zero"
            )
    if not (nu > 0).all():
        raise InputError(f"{path.name}: frequency must be positive, in MHz; the smallest is {nu.min():g}")
    return Spectrum(nu, temperature * UNITS[unit], weight)


def read_public_spectrum(name: str) -> Spectrum:
    """Read a public spectrum from the cache; nothing is downloaded here.

    Parameters
    ----------
    name : str
        A name in `PUBLIC_FORMATS`.

    Raises
    ------
    InputError
        No such spectrum, or it has not been fetched yet.
    """
    from lstmfit.datasets.public import PUBLIC, cache, fetch

    if name not in PUBLIC_FORMATS:
        raise InputError(f"data: no public spectrum {name!r}; {did_you_mean(name, PUBLIC_FORMATS)}")
    if not (cache() / PUBLIC[name].file).is_file():
        raise InputError(
            f"data: {name} is not in {cache()} yet; type `lstmfit data fetch {name}` (with --from FILE for a copy)"
        )
    return read_spectrum(fetch(name), **PUBLIC_FORMATS[name])


def read_written_spectrum(path) -> Spectrum:
    """Read back what `Spectrum.write` wrote, the true signal of a mock included.

    Raises
    ------
    ValueError
        It has been cut short: a column or a number is missing.
    """
    table = pd.read_csv(path, float_precision="round_trip")
    for name in ("frequency_MHz", "temperature_mK", "weight"):
        if name not in table:
            raise ValueError(f"no column {name}")
    gaps = ~np.isfinite(table.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)).all(axis=1)
    if gaps.any():
        raise ValueError(f"data row {_first(gaps) + 1} is not all numbers")
    columns = [table[name].to_numpy() for name in ("frequency_MHz", "temperature_mK", "weight")]
    return Spectrum(*columns, table["signal_mK"].to_numpy() if "signal_mK" in table else None)


def _first(bad):
    return int(np.flatnonzero(bad)[0])


def _read_table(path):
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            lines = (line.split("#")[0].strip() for line in file)
            first = next(filter(None, lines), "")
        between = next((mark for mark in ",;\t" if mark in first), r"\s+")
        # One number is enough: a first row with a gap or a typing error must not pass for a header and be lost.
        numbers = any(_is_number(cell) for cell in re.split(between, first))
        table = pd.read_csv(
            path,
            sep=between,
            comment="#",
            header=None if numbers else 0,
            skipinitialspace=True,
            index_col=False,
            encoding="utf-8-sig",
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not a table of numbers between commas, semicolons, tabs or blanks "
            f"({' '.join(str(error).split())})"
        ) from None
    if table.empty:
        raise InputError(f"{path} holds no rows")
    return table


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column(path, table, which):
    if isinstance(which, int) and not isinstance(which, bool):
        if not 0 <= which < table.shape[1]:
            raise InputError(f"{path.name}: no column {which}; columns are 0 to {table.shape[1] - 1}")
        return table.iloc[:, which]
    names = [str(name) for name in table.columns]
    if str(which) not in names:
        if all(isinstance(name, int) for name in table.columns):
            raise InputError(f"{path.name}: no column {which!r}, as there is no header; give a number from 0 on")
        raise InputError(f"{path.name}: no column {which!r}; the header has {', '.join(names)}")
    return table.iloc[:, names.index(str(which))]
