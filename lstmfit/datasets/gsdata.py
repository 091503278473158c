"""Spectra in EDGES' GSData files (``.gsh5``, version 2, written by the package pygsdata), read with h5py alone."""

import logging
from pathlib import Path

import h5py
import numpy as np

from lstmfit.datasets.channel_files import Kept
from lstmfit.datasets.columns import FREQUENCY_UNITS
from lstmfit.datasets.spectrum import Spectrum
from lstmfit.errors import InputError, did_you_mean, listed
from lstmfit.hdf5 import check_dataset, find_dataset, read_array, read_text, read_texts, reading

log = logging.getLogger(__name__)

AXES = ("load", "pol", "time", "freq")
"""Axes of the data, in their order."""
TERMS = 5
"""Terms of the smooth model of each time, see `average`."""


def is_hdf5(path) -> bool:
    """Whether a file has the signature of HDF5."""
    try:
        with Path(path).open("rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError:
        return False


def read_gsdata(path, load: str | None = None, time=None, lst=None) -> Spectrum:
    """Read a spectrum from a GSData file, averaged over the selected times.

    Parameters
    ----------
    path : path
        The file.
    load : str, optional
        Name of the load; by default the only one, or ``ant``.
    time : int or (int, int), optional
        Number of a time, from 0, or of the first and the last one to average; by default all.
    lst : (float, float), optional
        Range of the local sidereal time in hours, which may go past midnight: (22, 2).

    Returns
    -------
    Spectrum
        With weights of one, and the standard deviations of the noise given by the radiometer equation.

    Raises
    ------
    InputError
        The file is of another kind or damaged, its data are not temperatures, or nothing is selected.
    """
    name = Path(path).name
    with reading(path, "GSData file", "copy it again") as file:
        if not all(isinstance(file.get(group), h5py.Group) for group in ("data", "metadata")):
            raise InputError(f"{name} is HDF5, but not a GSData file: it lacks the groups data and metadata")
        version = read_text(file, "version", "1.0")
        if not version.startswith("2."):
            raise InputError(f"{name} has version {version} of GSData; write it again with pygsdata 0.2 or later")
        unit = read_text(file["metadata"], "data_unit")
        if unit != "temperature":
            raise InputError(f"{name} contains {unit}, but temperatures are needed; calibrate the data first")
        frequency = _frequency(file, name)
        shape, n = find_dataset(file, "data/data").shape, len(frequency)
        if len(shape) != 4 or shape[3] != n:
            raise InputError(f"{name}: data has shape {shape}; expected (loads, polarisations, times, {n})")
        if shape[1] != 1:
            raise InputError(f"{name} has {shape[1]} polarisations; write a file for each with pygsdata")
        at = _load(file, name, load, shape[0])
        times = _times(file, name, time, lst, at, shape)
        temperature, samples = (_selected(file, f"data/{key}", at, times, shape) for key in ("data", "nsamples"))
        seconds = samples * _integration_time(file, at, times, shape)[:, None]
        flagged = _flags(file, name, at, times, shape) | ~np.isfinite(temperature) | ~(seconds > 0)
    return average(name, frequency, temperature, np.where(flagged, 0.0, seconds))


def average(name: str, frequency: np.ndarray, temperature: np.ndarray, seconds: np.ndarray) -> Spectrum:
    """Average spectra over time.

    The sky changes with time, so that an average over the times at which a channel is not flagged would put steps into
    the spectrum. Therefore the deviations from a smooth model of each time, a log polynomial with `TERMS` terms, are
    averaged, and the average of the models is added. The models are weighted with the mean integration time of the
    channels that are not flagged.

    Parameters
    ----------
    name : str
        Name of the file, for messages.
    frequency : numpy.ndarray
        (n,) MHz.
    temperature : numpy.ndarray
        (n_times, n) K.
    seconds : numpy.ndarray
        (n_times, n) integration time, zero where a channel is flagged.

    Returns
    -------
    Spectrum
        Without channels that are always flagged. The noise of each time is T / sqrt(channel width * seconds).

    Raises
    ------
    InputError
        Every channel is flagged, or there are too few for the smooth model.
    """
    used = (seconds > 0).any(axis=1)
    if not used.any():
        raise InputError(f"{name}: every channel of the selected times is flagged, so there is nothing to fit")
    temperature, seconds = np.where(seconds > 0, temperature, 0.0)[used], seconds[used]
    y = frequency / np.sqrt(frequency.min() * frequency.max())
    basis = y[:, None] ** -2.5 * np.log(y)[:, None] ** np.arange(TERMS)
    if len(seconds) > 1:
        few = (seconds > 0).sum(axis=1) < 2 * TERMS
        if few.any():
            raise InputError(
                f"{name}: {int(few.sum())} of the selected times have fewer than {2 * TERMS} channels that are not "
                "flagged; exclude them with time or lst"
            )
        models = np.stack([basis @ _fit(basis, t, s) for t, s in zip(temperature, seconds)])
    else:
        models = np.zeros_like(temperature)
    total = seconds.sum(axis=0)
    keep = total > 0
    deviation = (seconds * (temperature - models)).sum(axis=0)[keep] / total[keep]
    typical = seconds.sum(axis=1) / (seconds > 0).sum(axis=1)
    share = typical / typical.sum()
    width = 1e6 * float(np.median(np.diff(np.sort(frequency))))
    variance = (seconds * temperature**2).sum(axis=0)[keep] / (width * total[keep] ** 2)
    log.info("%s: %d times are averaged; %d of %d channels are flagged", name, len(seconds), (~keep).sum(), len(keep))
    return Spectrum(
        frequency[keep],
        1000.0 * (deviation + (share @ models)[keep]),
        np.ones(int(keep.sum())),
        kept=None if keep.all() else Kept(np.flatnonzero(keep), len(keep)),
        sigma=1000.0 * np.sqrt(variance),
    )


def _fit(basis, temperature, seconds):
    root = np.sqrt(seconds)
    return np.linalg.lstsq(root[:, None] * basis, root * temperature, rcond=None)[0]


def _frequency(file, name):
    frequency = read_array(file, "metadata/freqs", (None,)).astype(float)
    unit = read_text(file["metadata/freqs"], "unit", "MHz")
    if unit not in FREQUENCY_UNITS:
        raise InputError(f"{name}: frequencies are in {unit}; expected {listed(FREQUENCY_UNITS)}")
    frequency = frequency * FREQUENCY_UNITS[unit]
    if len(frequency) < 2 or not (frequency > 0).all() or len(np.unique(frequency)) < len(frequency):
        raise InputError(f"{name}: frequencies must be at least two distinct positive numbers")
    return frequency


def _load(file, name, load, n):
    """Number of the load."""
    dataset = find_dataset(file, "metadata/loads")
    known = [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in dataset[()].ravel()]
    if len(known) != n:
        raise InputError(f"{name} has {len(known)} names of loads, but {n} loads")
    if load is None:
        load = known[0] if n == 1 else "ant"
    if load not in known:
        raise InputError(f"{name}: no load {load!r}; {did_you_mean(load, known, 'the file has')}")
    return known.index(load)


def _times(file, name, time, lst, at, shape):
    """Mask (n_times,) of the selected times."""
    n = shape[2]
    chosen = np.ones(n, dtype=bool)
    if time is not None:
        first, last = (time, time) if isinstance(time, int) else time
        if not 0 <= first <= last < n:
            known = f"the file has times 0 to {n - 1}"
            raise InputError(f"{name}: time is {time}, but {known}; give a number or [first, last]")
        chosen &= (np.arange(n) >= first) & (np.arange(n) <= last)
    if lst is not None:
        hours, (low, high) = read_array(file, "metadata/lsts", (n, shape[0]))[:, at] % 24.0, lst
        inside = (hours >= low) & (hours <= high) if low <= high else (hours >= low) | (hours <= high)
        if not (chosen & inside).any():
            raise InputError(
                f"{name}: no time has a local sidereal time of {low:g} to {high:g} h; the file has "
                f"{hours.min():.2f} to {hours.max():.2f} h"
            )
        chosen &= inside
    return chosen


def _selected(file, key, at, times, shape):
    """Array (n_selected, n_channels) of one load at the selected times."""
    dataset = find_dataset(file, key)
    check_dataset(dataset, shape)
    return np.asarray(dataset[at, 0], dtype=float)[times]


def _integration_time(file, at, times, shape):
    """Effective integration time (n_selected,) of a sample in seconds."""
    dataset = find_dataset(file, "metadata/effective_integration_time")
    check_dataset(dataset, (None,) * len(dataset.shape or ()))
    seconds = np.asarray(dataset[()], dtype=float)
    if seconds.size == 1:
        return np.full(int(times.sum()), float(seconds.ravel()[0]))
    return np.broadcast_to(seconds, shape[:3])[at, 0][times]


def _flags(file, name, at, times, shape):
    """Flags (n_selected, n_channels) of any name."""
    group = file["data"].get("flags")
    flagged = np.zeros(shape, dtype=bool)
    if not isinstance(group, h5py.Group) or "names" not in group.attrs:
        return flagged[at, 0][times]
    for key in read_texts(group, "names"):
        part = find_dataset(group, f"{key}/data/flags")
        check_dataset(part, (None,) * len(part.shape or ()), "flag")
        axes = _axes(group, key)
        if len(axes) != len(part.shape) or any(axis not in AXES for axis in axes):
            raise InputError(f"{name}: the flags {key} have axes {listed(axes)} and shape {part.shape}")
        wanted = tuple(shape[AXES.index(axis)] for axis in axes)
        if part.shape != wanted:
            raise InputError(f"{name}: the flags {key} have shape {part.shape}, but the data need {wanted}")
        full = [shape[i] if axis in axes else 1 for i, axis in enumerate(AXES)]
        flagged |= part[()].reshape(full)
    return flagged[at, 0][times]


def _axes(group, key):
    """Names of the axes of flags. Hickle writes each as an array of single characters."""
    holder = group[f"{key}/data/axes"]
    names = [find_dataset(holder, f"data{i}")[()] for i in range(len(holder))]
    return [b"".join(np.ravel(text).tolist()).decode("ascii", "replace") for text in names]
