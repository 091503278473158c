"""Measured and mock spectra: frequency, temperature, weight."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.channel_files import Kept
from lstmfit.datasets.columns import (
    DEFAULT,
    FREQUENCY_UNITS,
    UNITS,
    check_axis,
    check_columns,
    check_headings,
    check_temperature,
    columns_in_header,
)
from lstmfit.datasets.tables import Table, read_table
from lstmfit.errors import InputError, did_you_mean
from lstmfit.files import AnyPath, replacing

log = logging.getLogger(__name__)

ROUNDING = 1e-6
"""Fraction of a bin by which a channel may lie below its lower edge because its frequency was rounded."""

PUBLIC_FORMATS = {"edges2018": {"columns": {"frequency": 0, "weight": 1, "temperature": 2}, "unit": "K"}}
"""Arguments of `read_spectrum` for the public spectra of `lstmfit.datasets.public`, by name."""


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
    kept : Kept, optional
        Numbers of these channels in the data file, if others were left out.
    sigma : numpy.ndarray, optional
        (n,) mK, standard deviation of the noise of each channel, if the data come with it.
    """

    frequency: np.ndarray
    temperature: np.ndarray
    weight: np.ndarray
    truth: np.ndarray | None = None
    kept: Kept | None = None
    sigma: np.ndarray | None = None

    def cut(self, low: float, high: float) -> "Spectrum":
        """Select the channels from `low` to `high` MHz.

        Raises
        ------
        InputError
            There are no channels in this band.
        """
        keep = (self.frequency >= low) & (self.frequency <= high)
        if not keep.any():
            raise InputError(
                f"data: there are no channels in the band [{low:g}, {high:g}] MHz; choose a band within "
                f"{self.frequency.min():.4g} to {self.frequency.max():.4g} MHz"
            )
        truth, sigma = (None if array is None else array[keep] for array in (self.truth, self.sigma))
        kept = self.kept
        if not keep.all():
            n = len(keep)
            kept = (Kept(np.arange(n), n) if kept is None else kept).only(keep)
        return Spectrum(self.frequency[keep], self.temperature[keep], self.weight[keep], truth, kept, sigma)

    def binned(self, width: float) -> "Spectrum":
        """Average the channels in bins of equal width.

        Channels are averaged with the inverse variance of their noise: their weight, or 1 / sigma^2 if they have a
        `sigma`. The frequency of a bin is the average of its channels with the same weights. To keep the curvature of a
        foreground from leaking into bins with unevenly flagged channels, temperatures are scaled to that frequency by a
        power law of index -2.5 before they are averaged.

        Parameters
        ----------
        width : float
            Width of a bin in MHz. The first bin begins at the lowest frequency.

        Returns
        -------
        Spectrum
            In ascending order of frequency, without empty bins. Its weights are the sums of those of the channels, so
            that the noise of a channel of weight one keeps its meaning.
        """
        number = np.floor((self.frequency - self.frequency.min()) / width + ROUNDING).astype(int)
        _, number = np.unique(number, return_inverse=True)
        inverse_variance = self.weight if self.sigma is None else self.sigma**-2.0
        total = np.bincount(number, inverse_variance)

        def mean(values: np.ndarray) -> np.ndarray:
            return np.bincount(number, inverse_variance * values) / total

        frequency = mean(self.frequency)
        scale = (self.frequency / frequency[number]) ** 2.5
        return Spectrum(
            frequency,
            mean(scale * self.temperature),
            np.bincount(number, self.weight),
            None if self.truth is None else mean(self.truth),
            sigma=None if self.sigma is None else np.sqrt(mean(scale**2) / total),
        )

    def write(self, path: AnyPath) -> None:
        """Write a CSV file with one header line, which `read_spectrum` can read."""
        columns = {"frequency_MHz": self.frequency, "temperature_mK": self.temperature, "weight": self.weight}
        if self.truth is not None:
            columns["signal_mK"] = self.truth
        if self.sigma is not None:
            columns["sigma_mK"] = self.sigma
        if self.kept is not None:
            columns["channel"] = self.kept.number
        with replacing(path) as temporary:
            pd.DataFrame(columns).to_csv(temporary, index=False, float_format="%.17g")


def read_spectrum(path: AnyPath | pd.DataFrame, columns: dict | None = None, unit: str | None = None) -> Spectrum:
    """Read a spectrum from a table.

    Parameters
    ----------
    path : path or pandas.DataFrame
        Text separated by commas, semicolons, tabs or spaces, with or without a header line, and with comments after #;
        or a ``.npy`` or ``.npz`` file (`lstmfit.datasets.tables.read_table`).
    columns : mapping, optional
        Numbers (counted from 0) or names of the columns ``frequency`` (with ``frequency_unit``: Hz, kHz, MHz or GHz;
        MHz by default) or ``redshift``, ``temperature``, and optionally ``weight``, ``flag`` and ``sigma``. By default
        those of the header, or columns 0 and 1 if it does not name both frequency and temperature. A column whose name
        in the header is a weight, a flag (or mask) or a standard deviation is always used, with a message in the log. A
        number other than zero, or True, flags a channel.
    unit : {"mK", "K"}, optional
        Unit of the temperature; by default that of the header, or mK if it has none.

    Returns
    -------
    Spectrum
        Without channels that are flagged or have zero weight or a NaN temperature; in the order of the file.

    Raises
    ------
    InputError
        There is no such file or column, a value is not a number, a frequency or weight is impossible, a frequency is
        repeated, or a column looks like another quantity, in which case the message suggests the correct keys.
    """
    columns = None if columns is None else check_columns(columns)
    table = _table(path)
    name, headings = table.name, table.headings
    if columns is None:
        columns = columns_in_header(name, headings)
        if columns != DEFAULT:
            log.info("%s: columns according to the header: %s", name, columns)
    if unit not in (None, *UNITS):
        raise InputError(f"{name}: unit is {unit!r}; expected K or mK")
    at = {what: table.number(which) for what, which in columns.items() if what != "frequency_unit"}
    for what in ("weight", "flag", "sigma"):
        known = [i for i, heading in enumerate(headings) if heading.kind == what and i not in at.values()]
        if known and what not in at:
            at[what] = known[0]
            log.info("%s: the column %r in the header is used as %s", name, headings[known[0]].name, what)
    axis = "redshift" if "redshift" in at else "frequency"
    x, _ = table.column(at[axis])
    temperature, empty = table.column(at["temperature"])
    weight = _weights(name, table, at)
    flagged = table.flags(at["flag"]) if "flag" in at else np.zeros(len(x), dtype=bool)
    keep = (weight > 0) & ~flagged & ~empty
    if not keep.any():
        which = "has weight zero" if not (weight > 0).any() else "is flagged"
        raise InputError(f"{name}: every channel {which}, so there is nothing to fit; check the column")
    for what, array in ((axis, x), ("temperature", temperature)):
        bad = keep & ~np.isfinite(array)
        if bad.any():
            raise InputError(
                f"{name}: {what} is not a number in data row {_first(bad) + 1} (not counting comments and header); "
                "correct it, or exclude the channel by zero weight or by nan"
            )
    if not (x[keep] > 0).all():
        units = "" if axis == "redshift" else f", in {columns.get('frequency_unit', 'MHz')}"
        raise InputError(f"{name}: {axis} must be positive{units}, but the smallest is {x[keep].min():g}; correct it")
    check_headings(name, headings, columns, at)
    check_axis(name, x[keep], columns, at, len(headings), headings[at[axis]].kind == "frequency")
    check_temperature(name, temperature[keep], headings, columns, at)
    unit = _unit(name, headings[at["temperature"]].unit, unit)
    sigma = _sigma(name, table, at, keep, unit)
    if axis == "redshift":
        nu = redshift_to_frequency(x[keep])
    else:
        nu = x[keep] * FREQUENCY_UNITS[columns.get("frequency_unit", "MHz")]
    _check_once(name, nu, np.flatnonzero(keep))
    if not keep.all():
        why = {"weight zero": weight == 0, "flagged": flagged, "NaN": empty}
        parts = [f"{int(where.sum())} {what}" for what, where in why.items() if where.any()]
        log.info("%s: %d of %d channels are excluded (%s)", name, int((~keep).sum()), len(keep), ", ".join(parts))
    kept = None if keep.all() else Kept(np.flatnonzero(keep), len(keep))
    return Spectrum(nu, temperature[keep] * UNITS[unit], weight[keep], kept=kept, sigma=sigma)


def _table(source: AnyPath | pd.DataFrame) -> Table:
    if isinstance(source, pd.DataFrame):
        return Table("the table", [str(name) for name in source.columns], source, source.isna().to_numpy())
    path = Path(source)
    if not path.is_file():
        raise InputError(f"no data file {path}; paths are relative to the folder of the run file")
    return read_table(path)


def _weights(name: str, table: Table, at: dict) -> np.ndarray:
    """Weights (n,), zero where the file has NaN; ones if there is no column of weights."""
    if "weight" not in at:
        return np.ones(len(table.frame))
    weight, empty = table.column(at["weight"])
    weight = np.where(empty, 0.0, weight)
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        raise InputError(
            f"{name}: the weight in data row {_first(bad) + 1} (column {at['weight']}) is negative or not finite; "
            "correct it, or set it to zero"
        )
    return weight


def _sigma(name: str, table: Table, at: dict, keep: np.ndarray, unit: str | None) -> np.ndarray | None:
    """Standard deviations (m,) in mK of the channels to keep, in the unit of its heading or that of the temperature."""
    if "sigma" not in at:
        return None
    sigma, _ = table.column(at["sigma"])
    bad = keep & ~(np.isfinite(sigma) & (sigma > 0))
    if bad.any():
        raise InputError(
            f"{name}: sigma is not a positive number in data row {_first(bad) + 1} (column {at['sigma']}); correct it, "
            "flag the channel, or rename the column if it is not the standard deviation of the temperature"
        )
    written = table.headings[at["sigma"]].unit
    return sigma[keep] * UNITS[written if written in UNITS else unit]


def _unit(name: str, written: str | None, given: str | None) -> str:
    """Unit of the temperature; the given unit and that of the header must agree."""
    if written is not None and written not in UNITS and written.endswith("K"):
        raise InputError(f"{name}: the header has temperatures in [{written}]; convert them to K or mK")
    written = written if written in UNITS else None
    if written is not None and given is not None and written != given:
        raise InputError(f"{name}: the header has temperatures in {written}, but unit is {given}; set unit: {written}")
    if written is not None and given is None:
        log.info("%s: temperatures are in %s, according to the header", name, written)
    return given or written or "mK"


def _check_once(name: str, nu: np.ndarray, rows: np.ndarray) -> None:
    """Raise InputError if a frequency is repeated."""
    order = np.argsort(nu, kind="stable")
    twice = np.flatnonzero(np.diff(nu[order]) == 0)
    if len(twice):
        one, two = sorted(rows[order[twice[0] : twice[0] + 2]] + 1)
        n = len(nu) - len(np.unique(nu))
        raise InputError(
            f"{name}: {nu[order[twice[0]]]:.9g} MHz appears twice, in data rows {one} and {two} ({n} repeated in all); "
            "average repeated integrations before fitting, or write each to its own file"
        )


def read_public_spectrum(name: str) -> Spectrum:
    """Read a public spectrum from the cache; nothing is downloaded here.

    Parameters
    ----------
    name : str
        A name in `PUBLIC_FORMATS`.

    Raises
    ------
    InputError
        There is no such spectrum, or it has not been fetched yet.
    """
    from lstmfit.datasets.public import PUBLIC, cache, fetch

    if name not in PUBLIC_FORMATS:
        raise InputError(f"data: no public spectrum {name!r}; {did_you_mean(name, PUBLIC_FORMATS)}")
    if not (cache() / PUBLIC[name].file).is_file():
        raise InputError(
            f"data: {name} is not in {cache()} yet; to fix this: lstmfit data fetch {name} (or --from FILE for a copy)"
        )
    return read_spectrum(fetch(name), **PUBLIC_FORMATS[name])


def read_written_spectrum(path: AnyPath) -> Spectrum:
    """Read a file written by `Spectrum.write`, including the true signal of a mock.

    Raises
    ------
    ValueError
        The file is truncated: a column or a number is missing.
    """
    table = pd.read_csv(path, float_precision="round_trip")
    for name in ("frequency_MHz", "temperature_mK", "weight"):
        if name not in table:
            raise ValueError(f"no column {name}")
    gaps = ~np.isfinite(table.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)).all(axis=1)
    if gaps.any():
        raise ValueError(f"data row {_first(gaps) + 1} has values that are not numbers")
    columns = [table[name].to_numpy() for name in ("frequency_MHz", "temperature_mK", "weight")]
    truth = table["signal_mK"].to_numpy() if "signal_mK" in table else None
    sigma = table["sigma_mK"].to_numpy() if "sigma_mK" in table else None
    kept = Kept(table["channel"].to_numpy()) if "channel" in table else None
    if kept is not None and (kept.number.dtype.kind != "i" or kept.number.min() < 0):
        raise ValueError("column channel does not contain channel numbers")
    return Spectrum(*columns, truth, kept, sigma)


def _first(bad: np.ndarray) -> int:
    return int(np.flatnonzero(bad)[0])
