"""Sets of signals to train and test on, read from every known layout and checked."""

import dataclasses
import warnings
from dataclasses import dataclass, field

import h5py
import numpy as np

from lstmfit.datasets.columns import UNITS
from lstmfit.datasets.layouts import SPLITS, WHOLE, RawSet, check_array, read_raw
from lstmfit.datasets.specs import SignalSpec, find_spec
from lstmfit.errors import InputError
from lstmfit.files import replacing, user_path
from lstmfit.hdf5 import write_axes
from lstmfit.outputs import OutputLayout
from lstmfit.parameters import Parameter


@dataclass(frozen=True)
class Split:
    """Training, validation or test signals.

    Parameters
    ----------
    theta : numpy.ndarray
        (n, n_params) in physical units.
    signal : numpy.ndarray
        (n, n_channels) mK, redshift ascending.
    extras : dict of str to numpy.ndarray
        Further outputs by name: histories (n, n_channels), numbers (n,), tables of any other shape (n, ...).
    """

    theta: np.ndarray
    signal: np.ndarray
    extras: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.theta)

    def rows(self, which) -> "Split":
        """Split with a selection of the rows."""
        return Split(self.theta[which], self.signal[which], {k: v[which] for k, v in self.extras.items()})


@dataclass(frozen=True)
class SignalSet:
    """A set with its grid and parameters.

    Parameters
    ----------
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    parameters : tuple of Parameter
        In the order of theta.
    train, val, test : Split
        The three splits; empty if the file has none.
    record : dict
        Provenance.
    axes : dict of str to dict of str to numpy.ndarray
        Grids of the outputs that are tables, see `lstmfit.outputs.OutputLayout`.
    """

    redshifts: np.ndarray
    parameters: tuple[Parameter, ...]
    train: Split
    val: Split
    test: Split
    record: dict
    axes: dict = field(default_factory=dict)

    @property
    def whole(self) -> Split:
        """All splits, one after the other."""
        parts = [split for split in (self.train, self.val, self.test) if len(split)] or [self.train]
        extras = {name: np.concatenate([part.extras[name] for part in parts]) for name in parts[0].extras}
        theta, signal = (np.concatenate([getattr(part, name) for part in parts]) for name in ("theta", "signal"))
        return Split(theta, signal, extras)

    @property
    def layout(self) -> OutputLayout:
        """Outputs: the signal, further histories, numbers and tables."""
        split = next((s for s in (self.train, self.val, self.test) if len(s)), self.train)
        others = [name for name in split.extras if name not in self.axes]
        numbers = [name for name in others if split.extras[name].ndim == 1]
        histories = ["signal", *(name for name in others if name not in numbers)]
        return OutputLayout.of(len(self.redshifts), histories, numbers, self.axes)


def load_signals(path, splits=SPLITS, spec=None) -> SignalSet:
    """Read a set of signals.

    Parameters
    ----------
    path : path
        One of: an HDF5 file of `lstmfit simulate`; the public 21cmGEM file of 21cmVAE (``par_train``,
        ``signal_train``, ...); the public ARES file of 21cmLSTM (``train_data``, ``train_labels``, ...); an HDF5 or
        ``.npz`` file with arrays named by `spec`; a folder with the plain-text 21cmGEM tables
        (``Par_train_21cmGEM.txt``, ``T21_train_21cmGEM.txt``, ...); a folder with the training set of a globalemu
        (``train_data.txt``, ``train_labels.txt``, ..., and its ``z.txt``, or the grid of `spec`).
    splits : sequence of str
        Splits to read; the others are empty.
    spec : SignalSpec, str or path, optional
        Description of a file that does not name its parameters, see `lstmfit.datasets.specs.find_spec`. By default
        that of the public set that is recognised.

    Returns
    -------
    SignalSet

    Raises
    ------
    InputError
        The file does not exist or is damaged, its layout is unknown, its shapes are inconsistent, its grid is not one
        of redshifts (or frequencies, if the spec says so), or its values cannot be trained on: not finite, a constant
        or impossible parameter, a repeated row.

    Notes
    -----
    Without a validation split, the last eighth of the training split is used for it. Without any splits (a spec
    without ``{split}``), an eighth of the rows is used for testing and an eighth for validation. These rows are
    chosen at random, but always the same for a given number of rows, so that signals used for testing are never
    trained on.
    """
    path = user_path(path, "set of signals")
    if not path.exists():
        raise InputError(f"no set of signals {path}; `lstmfit simulate -o {path.name} -n 4096` makes one")
    if not (path.is_dir() or path.is_file()):
        raise InputError(f"{path} is not a regular file; give a set of signals")
    if spec is not None and not isinstance(spec, SignalSpec):
        spec = find_spec(spec, "spec")
    return read_raw(path, spec, lambda raw: _check(path, raw, splits))


def drawn_splits(n: int) -> dict[str, np.ndarray]:
    """Rows of each split of a set that has none.

    Parameters
    ----------
    n : int
        Number of rows.

    Returns
    -------
    dict of str to numpy.ndarray
        Row numbers, ascending: ``test`` and ``val`` have n // 8 each, ``train`` has the rest.
    """
    # NumPy guarantees the raw stream of a bit generator for all versions, but not that of `permutation`.
    rows = np.argsort(np.random.PCG64(0).random_raw(n), kind="stable")
    test, val, train = np.split(rows, [n // 8, 2 * (n // 8)])
    return {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}


def _check(path, raw: RawSet, wanted) -> SignalSet:
    z, columns = raw.redshifts, raw.columns
    if not (np.diff(z) > 0).all():
        raise InputError(f"{path}: the redshift grid is not ascending; sort it and the signals with it")
    without_range = any(key not in column for column in columns for key in ("min", "max"))
    read = {}
    if WHOLE in raw.splits:
        whole = _split(path, raw, WHOLE, True)
        read = {split: whole.rows(rows) for split, rows in drawn_splits(len(whole)).items()}
    else:
        # Ranges that are not in the file are those of the training split, whose last rows may be needed to validate.
        need_train = "train" in wanted or without_range or ("val" in wanted and raw.splits["val"] is None)
        for split in SPLITS:
            read[split] = _split(path, raw, split, split in wanted or (split == "train" and need_train))
    _check_unit(path, raw, read)
    if raw.unit not in ("", "mK"):
        factor = np.float32(UNITS[raw.unit])
        read = {key: dataclasses.replace(split, signal=split.signal * factor) for key, split in read.items()}
    parameters = _parameters(path, columns, read["train"] if len(read["train"]) else read["test"])
    if WHOLE not in raw.splits and raw.splits["val"] is None and len(read["train"]) >= 8:
        cut = len(read["train"]) - len(read["train"]) // 8
        read["val"], read["train"] = read["train"].rows(slice(cut, None)), read["train"].rows(slice(cut))
    empty = Split(np.empty((0, len(columns))), np.empty((0, len(z)), np.float32))
    axes = {} if raw.layout is None else raw.layout.axes
    chosen = {s: read[s] if s in wanted else empty for s in SPLITS}
    return SignalSet(z, parameters, **chosen, record=raw.record, axes=axes)


FAINTEST = 2.0
"""Amplitude in mK; a set without any signal above it is taken to be in K."""


def _check_unit(path, raw, read):
    """Notice signals in K: an emulator trained on them would be wrong by a factor of a thousand."""
    unit = raw.unit
    brightest = max((float(np.abs(split.signal).max()) for split in read.values() if len(split)), default=np.inf)
    looks_like_k = unit != "K" and 0 < brightest < FAINTEST
    looks_like_mk = unit == "K" and brightest > 1000.0 * FAINTEST
    if not (looks_like_k or looks_like_mk):
        return
    said = f"{path}: the signals reach {brightest:.3g} at most, which looks like {'K' if looks_like_k else 'mK'}"
    if not unit:
        raise InputError(f"{said}; mK are expected: say which with {raw.say_unit}")
    warnings.warn(f"{said}, but signal_unit is {unit}", stacklevel=6)


def _parameters(path, columns, split) -> tuple[Parameter, ...]:
    parameters = []
    for i, column in enumerate(columns):
        values = split.theta[:, i]
        if not len(values) and not {"min", "max"} <= set(column):
            raise InputError(f"{path}: no training or test signals to take the range of {column['name']} from")
        low = column["min"] if "min" in column else values.min()
        high = column["max"] if "max" in column else values.max()
        if len(values) and values.min() == values.max():
            raise InputError(f"{path}: parameter {column['name']} is {values[0]:g} in every row; leave the column out")
        parameters.append(
            Parameter(
                column["name"],
                float(low),
                float(high),
                column.get("log", False),
                column.get("unit", ""),
                column.get("latex", ""),
                column.get("zero"),
            )
        )
    return tuple(parameters)


def _split(path, raw: RawSet, split, wanted) -> Split:
    arrays, columns, n_channels = raw.splits[split], raw.columns, len(raw.redshifts)
    if not wanted or arrays is None:
        return Split(np.empty((0, len(columns))), np.empty((0, n_channels), np.float32))
    n = arrays[0].shape[0] if arrays[0].shape else 0
    if tuple(arrays[0].shape) != (n, len(columns)) or tuple(arrays[1].shape) != (n, n_channels):
        raise InputError(
            f"{path}: the parameters of {split} are {arrays[0].shape} and its signals {arrays[1].shape}; "
            f"expected (n, {len(columns)}) and (n, {n_channels})"
        )
    shapes = {"signal": (n_channels,)} if raw.layout is None else raw.layout.shapes
    for name, array in {"parameters": arrays[0], "signal": arrays[1], **arrays[2]}.items():
        # Before anything is read: a file can declare any size.
        check_array(array, (n, *(shapes[name] if name != "parameters" else (len(columns),))))
    theta, signal = np.array(arrays[0], dtype=float), _native(arrays[1])
    extras = {name: _native(array) for name, array in arrays[2].items()}
    for name, array in {"parameters": theta, "signal": signal, **extras}.items():
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if bad.any():
            raise InputError(
                f"{path}: {name} of {split} has NaN or infinite values in {bad.sum()} rows, the first is "
                f"{bad.argmax()}; remove those rows"
            )
    if raw.order is not None:
        signal = signal[:, raw.order]
        on_grid = () if raw.layout is None else raw.layout.histories
        extras = {name: array[:, raw.order] if name in on_grid else array for name, array in extras.items()}
    for i, column in enumerate(columns):
        if "zero" in column:
            theta[theta[:, i] == 0, i] = column["zero"]
        if column.get("log") and len(theta) and theta[:, i].min() <= 0:
            raise InputError(
                f"{path}: {column['name']} of {split} is {theta[:, i].min():g}, but log10 of it is taken; "
                "it must be positive"
            )
    repeated = len(theta) - len(np.unique(theta, axis=0))
    if repeated:
        raise InputError(f"{path}: {repeated} rows of {split} repeat the parameters of another row; remove them")
    return Split(theta, signal, extras)


def _native(array) -> np.ndarray:
    """Read an array in the byte order of this machine."""
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def write_test_set(path, data: SignalSet, n: int = 1024) -> None:
    """Write the first test signals of a set to a small file that is kept beside an emulator.

    Signals are rounded to 1e-4 mK and neutral fractions to 1e-6, which halves the size of the file.

    Parameters
    ----------
    path : path
        File to create or replace.
    data : SignalSet
        Its test split is written.
    n : int
        Maximum number of signals.
    """
    text = h5py.string_dtype()
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        columns = {
            "parameters": [p.name for p in data.parameters],
            "units": [p.unit for p in data.parameters],
            "latex": [p.latex for p in data.parameters],
        }
        for name, values in columns.items():
            file.attrs[name] = np.array(values, dtype=text)
        for name in ("log", "min", "max"):
            file.attrs[name] = np.array([getattr(p, name) for p in data.parameters])
        file.attrs["zero"] = np.array([p.zero or 0.0 for p in data.parameters])
        for key, value in data.record.items():
            file.attrs[key] = value
        file.attrs["signal_unit"] = "mK"
        file["redshifts"] = data.redshifts
        write_axes(file, data.layout)
        file["par_test"] = data.test.theta[:n]
        histories = {"signal": data.test.signal} | data.test.extras
        for name, array in histories.items():
            if array.ndim == 1:
                file[f"{name}_test"] = array[:n]
                continue
            digits = 4 if name == "signal" else 6
            file.create_dataset(
                f"{name}_test", data=array[:n].astype(np.float32), scaleoffset=digits, compression="gzip", shuffle=True
            )
