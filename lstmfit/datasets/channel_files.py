"""Files with one row per channel of the data, such as foreground modes: text, .npy, .npz and HDF5."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstmfit.datasets.columns import FREQUENCY_UNITS, UNITS
from lstmfit.errors import InputError, listed, one_line
from lstmfit.files import user_path
from lstmfit.schema import LARGEST, shown

FREQUENCIES = "frequencies"
"""Name of the frequencies in MHz among the arrays of a file."""
SAME_FREQUENCY = 1e-5
"""Largest relative difference of two frequencies of the same channel, to allow for rounding in text files."""
MOST_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Kept:
    """Channels that were kept when others were cut or flagged.

    Parameters
    ----------
    number : numpy.ndarray
        (n,) number of each kept channel among all channels of the data file, from 0.
    n_before : int or None
        Number of all channels of the data file; None if it is not known.
    """

    number: np.ndarray
    n_before: int | None = None

    def only(self, keep: np.ndarray) -> "Kept":
        """The channels that are also kept by a mask (n,)."""
        return Kept(self.number[keep], self.n_before)


@dataclass(frozen=True)
class ChannelFile:
    """Arrays of a file, some of which have the channels as their first dimension.

    Parameters
    ----------
    name : str
        Name of the file, for messages.
    arrays : dict of str to numpy.ndarray
        Arrays of numbers by name.
    unit : {"K", "mK"}
        Unit of its temperatures.
    """

    name: str
    arrays: dict[str, np.ndarray]
    unit: str = "K"

    @property
    def frequencies(self) -> np.ndarray | None:
        """(n,) MHz; None if the file has no frequencies.

        Raises
        ------
        InputError
            They are not one positive number per row.
        """
        nu = self.arrays.get(FREQUENCIES)
        if nu is None:
            return None
        if nu.ndim != 1 or not len(nu) or not (np.isfinite(nu).all() and (nu > 0).all()):
            raise InputError(f"{self.name}: {FREQUENCIES} must be a list of positive numbers in MHz")
        return nu

    def on_channels(self, name: str, dimensions: int, frequency: np.ndarray, kept: Kept | None) -> np.ndarray:
        """Rows of an array at the channels of the data.

        The rows are selected by the frequencies in the file. Without these, the file must have one row for each channel
        of the data file, including those that were cut or flagged.

        Parameters
        ----------
        name : str
            Name of the array.
        dimensions : int
            1 for (n_rows,), 2 for (n_rows, m).
        frequency : numpy.ndarray
            (n,) MHz, channels of the data.
        kept : Kept or None
            Their numbers in the data file, if channels were left out.

        Returns
        -------
        numpy.ndarray
            (n,) or (n, m) in mK.

        Raises
        ------
        InputError
            The array has another shape, its rows do not match the data, or its values there are not finite.
        """
        array = self.arrays[name]
        if array.ndim == 2 and dimensions == 1 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim == 1 and dimensions == 2:
            array = array[:, None]
        if array.ndim != dimensions or array.size == 0:
            wanted = "(channels,)" if dimensions == 1 else "(channels, columns)"
            raise InputError(f"{self.name}: {name} has shape {array.shape}, but {wanted} is expected")
        array = array[self._rows(name, array, frequency, kept)]
        good = (np.abs(array) <= LARGEST).reshape(len(array), -1).all(axis=1)
        if not good.all():
            at = frequency[int(good.argmin())]
            raise InputError(f"{self.name}: {name} is not finite at {at:.6g} MHz; give finite numbers")
        return array * UNITS[self.unit]

    def _rows(self, name, array, frequency, kept):
        nu = self.frequencies
        if nu is not None:
            if len(nu) != len(array):
                raise InputError(f"{self.name} has {len(nu)} {FREQUENCIES}, but {len(array)} rows of {name}")
            order = np.argsort(nu, kind="stable")
            at = np.clip(np.searchsorted(nu[order], frequency), 1, max(len(nu) - 1, 1))
            pair = np.stack([order[at - 1], order[np.minimum(at, len(nu) - 1)]])
            nearest = pair[np.abs(nu[pair] - frequency).argmin(axis=0), np.arange(len(frequency))]
            missing = ~(np.abs(nu[nearest] - frequency) <= SAME_FREQUENCY * frequency)
            if missing.any():
                raise InputError(
                    f"{self.name} has no row for {missing.sum()} of the {len(frequency)} channels, the first at "
                    f"{frequency[missing.argmax()]:.9g} MHz; its {len(nu)} frequencies are {nu.min():.6g} to "
                    f"{nu.max():.6g} MHz; create it for the frequencies of the data"
                )
            return nearest
        n = len(frequency) if kept is None else kept.n_before
        # The total is unknown for data of a run folder, whose files have been checked before.
        enough = len(array) == n if n is not None else len(array) > kept.number.max()
        if not enough:
            total = f"more than {kept.number.max()}" if n is None else n
            left = f", of which {len(frequency)} are fitted" if kept is not None else ""
            raise InputError(
                f"{self.name} has {len(array)} rows, but the data have {total} channels{left}; give one row for each "
                f"channel of the data file, or an array of {FREQUENCIES} in MHz"
            )
        rows = np.arange(len(frequency)) if kept is None else kept.number
        first = array[rows] if array.ndim == 1 else array[rows, 0]
        if array.ndim == 2 and np.allclose(first, frequency, rtol=SAME_FREQUENCY, atol=0.0):
            raise InputError(
                f"{self.name}: its first column contains the frequencies of the data; name it in a header line "
                f"(# frequency mode_0 mode_1 ...), or write a .npz or HDF5 file with an array {FREQUENCIES}"
            )
        return rows


def read_channel_file(path, name: str, others=(), what: str = "foreground file") -> ChannelFile:
    """Read the arrays of a file.

    Parameters
    ----------
    path : path
        A ``.npy`` file, or text with columns (a column whose header is a frequency gives the `FREQUENCIES`): one array.
        Or ``.npz`` or HDF5 with named arrays; in HDF5 an attribute ``unit`` (K or mK) gives the unit of temperatures.
        The format is recognised by content.
    name : str
        Name of the required array. An array without a name, or a single array of any name, is taken to be this one.
    others : sequence of str
        Names of optional arrays that are also read, besides the frequencies.
    what : str
        Description of the file for messages.

    Raises
    ------
    InputError
        There is no such file, it is damaged or of another kind, or the array is missing.
    """
    path = user_path(path, what)
    if not path.is_file():
        raise InputError(f"no {what} {path}; a path is relative to the folder of the run file")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    wanted = (name, FREQUENCIES, *others)
    if start == b"\x89HDF\r\n\x1a\n":
        arrays, unit = _from_hdf5(path, wanted, what)
    elif start.startswith(b"PK\x03\x04"):
        arrays, unit = _from_npz(path, wanted), "K"
    elif start.startswith(b"\x93NUMPY"):
        arrays, unit = _from_npy(path, what), "K"
    else:
        arrays, unit = _from_text(path, name), "K"
    arrays = _chosen(path.name, arrays, name, wanted)
    for key, array in arrays.items():
        if array.dtype.kind not in "iuf":
            raise InputError(f"{path.name}: {key} has type {array.dtype}, but real numbers are expected")
    return ChannelFile(path.name, {key: array.astype(float) for key, array in arrays.items()}, unit)


def _chosen(file, arrays, name, wanted):
    """Select the wanted arrays by name; if `name` is missing, a single array of another name is taken instead."""
    chosen = {key: arrays[key] for key in wanted if key in arrays}
    if name not in arrays:
        unknown = [key for key in arrays if key not in wanted]
        if len(unknown) != 1:
            raise InputError(f"{file} has no array {name}; it has {listed(arrays, 6)}")
        chosen[name] = arrays[unknown[0]]
    return chosen


def _from_hdf5(path, wanted, what):
    import h5py

    from lstmfit.hdf5 import check_dataset, find_dataset, read_text, reading

    with reading(path, what, "create it again") as file:
        unit = read_text(file, "unit", "K")
        if unit not in UNITS:
            raise InputError(f"{path.name}: attribute unit is {shown(unit)}; expected K or mK")
        known = [key for key in file if isinstance(file.get(key, getlink=True), h5py.HardLink)]
        datasets = {key: find_dataset(file, key) for key in known if isinstance(file[key], h5py.Dataset)}
        arrays = {}
        # Only these are read: a file may also have large arrays for other purposes.
        for key, dataset in _chosen(path.name, datasets, wanted[0], wanted).items():
            check_dataset(dataset, (None,) * len(dataset.shape or ()))
            arrays[key] = np.asarray(dataset[()])
    return arrays, unit


def _from_npz(path, wanted):
    from lstmfit.datasets.npz import reading_npz

    with reading_npz(path) as file:
        return {key: np.array(member) for key, member in _chosen(path.name, file, wanted[0], wanted).items()}


def _from_npy(path, what):
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("it is larger than 2 GB")
        with path.open("rb") as file:
            return {"": np.lib.format.read_array(file, allow_pickle=False)}
    except Exception as error:
        # A damaged header or archive can make NumPy raise almost anything.
        raise InputError(f"{path.name} cannot be read as a {what} ({one_line(error, 120)}); create it again") from None


def _from_text(path: Path, name):
    from lstmfit.datasets.tables import read_table

    table = read_table(path, least=1)
    columns = [table.column(i) for i in range(table.frame.shape[1])]
    for i, (values, empty) in enumerate(columns):
        bad = ~np.isfinite(values) & ~empty
        if bad.any():
            raise InputError(f"{path.name}: column {i} is not a number in data row {int(bad.argmax()) + 1}; correct it")
    arrays, rest = {}, []
    for heading, (values, _) in zip(table.headings, columns):
        if heading.kind == "frequency" and FREQUENCIES not in arrays:
            arrays[FREQUENCIES] = values * FREQUENCY_UNITS.get(heading.unit or "MHz", 1.0)
        else:
            rest.append(values)
    if not rest:
        raise InputError(f"{path.name} only has a column of frequencies; add a column for {name}")
    return arrays | {name: np.column_stack(rest)}
