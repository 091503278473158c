"""Sets of signals to train and test on: one HDF5 file in the layout of the public 21cmVAE and 21cmLSTM sets."""

import dataclasses
import warnings
from dataclasses import dataclass, field

import h5py
import numpy as np

from lstmfit.datasets.specs import SignalSpec, presets
from lstmfit.errors import InputError, listed, one_line
from lstmfit.files import replacing, user_path
from lstmfit.hdf5 import (
    check_dataset,
    find_dataset,
    read_array,
    read_axes,
    read_numbers,
    read_text,
    read_texts,
    reading,
    write_axes,
)
from lstmfit.outputs import OutputLayout
from lstmfit.parameters import Parameter
from lstmfit.schema import shown


@dataclass(frozen=True)
class Split:
    """Training, validation or test signals.

    Parameters
    ----------
    theta : numpy.ndarray
        (n, n_params) physical.
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
        """Some of the rows."""
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
        The three splits; empty where the file has none.
    record : dict
        Where it came from.
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
    def layout(self) -> OutputLayout:
        """The outputs: the signal, further histories, numbers, tables."""
        split = next((s for s in (self.train, self.val, self.test) if len(s)), self.train)
        others = [name for name in split.extras if name not in self.axes]
        numbers = [name for name in others if split.extras[name].ndim == 1]
        histories = ["signal", *(name for name in others if name not in numbers)]
        return OutputLayout.of(len(self.redshifts), histories, numbers, self.axes)


def load_signals(path, splits=("train", "val", "test")) -> SignalSet:
    """Read a set of signals.

    Parameters
    ----------
    path : path
        One of: an HDF5 file of `lstmfit simulate`; the public 21cmGEM file of 21cmVAE (``par_train``,
        ``signal_train``, ...); the public ARES file of 21cmLSTM (``train_data``, ``train_labels``, ...); a folder with
        the plain-text 21cmGEM tables (``Par_train_21cmGEM.txt``, ``T21_train_21cmGEM.txt``, ...).
    splits : sequence of str
        What to read; the others come back empty.

    Returns
    -------
    SignalSet
        Where the file has no validation split, the last eighth of the training split is taken for it.

    Raises
    ------
    InputError
        No such file, another layout, shapes that do not fit together, or values that cannot be trained on: not
        finite, a constant or impossible parameter column, a repeated row.
    """
    path = user_path(path, "set of signals")
    if path.is_dir():
        return _check(path, _read_text(path), splits)
    if not path.exists():
        raise InputError(f"no set of signals {path}; `lstmfit simulate -o {path.name} -n 4096` makes one")
    with reading(path, "HDF5 file", "copy or make it again") as file:
        named = "parameters" in file.attrs
        return _check(path, _read_named(path, file) if named else _read_public(path, file), splits)


@dataclass(frozen=True)
class _Raw:
    """What a reader found, still unread where it is in HDF5; `unit` of the signals is empty where nothing says it."""

    redshifts: np.ndarray
    columns: list[dict]
    splits: dict
    record: dict
    unit: str = ""
    layout: OutputLayout | None = None


def _read_named(path, file) -> _Raw:
    """The layout of `lstmfit simulate`: names, ranges and grid are in the file."""
    missing = [name for name in ("log", "min", "max") if name not in file.attrs]
    missing += [] if "redshifts" in file else ["redshifts"]
    if missing:
        raise InputError(f"{path} is not a set of signals: {', '.join(missing)} is missing")
    names = read_texts(file, "parameters")
    n = len(names)
    if not n or len(set(names)) < n:
        raise InputError(f"{path}: its parameters are {listed(names)}; different names are needed")
    values = [read_numbers(file, "log", n, "flag"), *(read_numbers(file, key, n) for key in ("min", "max"))]
    values += [read_texts(file, key, n) if key in file.attrs else [""] * n for key in ("units", "latex")]
    # What stands for 0 of a logarithmic parameter; 0 where nothing does.
    values.append(read_numbers(file, "zero", n) if "zero" in file.attrs else [0.0] * n)
    keys = ("log", "min", "max", "unit", "latex", "zero")
    columns = [{"name": name} | dict(zip(keys, rest)) for name, *rest in zip(names, *values)]
    for column in columns:
        if not column["zero"]:
            del column["zero"]
    redshifts = read_array(file, "redshifts", (None,)).astype(float)
    layout = read_axes(file, len(redshifts))
    splits = {split: _keys(file, f"par_{split}", f"signal_{split}", split, layout) for split in SPLITS}
    record = {
        key: file.attrs[key].item() if hasattr(file.attrs[key], "item") else str(file.attrs[key])
        for key in ("simulator", "simulator_version", "design", "seed", "lstmfit_version")
        if key in file.attrs
    }
    return _Raw(redshifts, columns, splits, record, _unit(path, file), layout)


UNITS = {"mK": 1.0, "K": 1000.0}
"""Units of signals that the attribute ``signal_unit`` can name, in mK."""


def _unit(path, file) -> str:
    unit = read_text(file, "signal_unit", "")
    if unit and unit not in UNITS:
        raise InputError(f"{path}: attribute signal_unit is {shown(unit)}; expected {' or '.join(UNITS)}")
    return unit


def _keys(file, theta, signal, split, layout=None):
    if theta not in file or signal not in file:
        return None
    extras = {name: find_dataset(file, f"{name}_{split}") for name in layout or () if name != "signal"}
    return find_dataset(file, theta), find_dataset(file, signal), extras


def _read_public(path, file) -> _Raw:
    """A public layout without names: recognised by its keys, described by its preset."""
    for name, spec in presets().items():
        keys = {s: [key.format(split=s) for key in (spec.theta, spec.signal)] for s in SPLITS}
        if keys["train"][0] in file or keys["test"][0] in file:
            layout = read_axes(file, len(spec.grid))
            splits = {split: _keys(file, *pair, split, layout) for split, pair in keys.items()}
            return _Raw(spec.grid, columns_of(spec), splits, {"set": name}, _unit(path, file), layout)
    raise InputError(
        f"{path} is not a set of signals: it has {listed(file, 6) if len(file) else 'nothing'}; expected par_train and "
        "signal_train (21cmGEM layout) or train_data and train_labels (ARES layout)"
    )


def columns_of(spec: SignalSpec) -> list[dict]:
    """Columns of a spec; keys that it does not give are left out."""
    return [column.model_dump(exclude_none=True) for column in spec.parameters]


def _read_text(folder) -> _Raw:
    """The plain-text 21cmGEM tables: no header, white space, signals on z = 5, 5.1, ... 50."""
    splits = {}
    for split in SPLITS:
        files = [folder / f"{what}_{split}_21cmGEM.txt" for what in ("Par", "T21")]
        if all(file.is_file() for file in files):
            try:
                with warnings.catch_warnings():
                    # Of an empty file, which is refused below.
                    warnings.simplefilter("ignore", UserWarning)
                    splits[split] = (*(np.loadtxt(file, ndmin=2) for file in files), {})
            except (ValueError, OSError) as error:
                names = f"{files[0].name} or {files[1].name}"
                raise InputError(f"{folder}: {names} is not a table of numbers ({one_line(error, 120)})") from None
    if not splits:
        raise InputError(f"{folder} has no Par_train_21cmGEM.txt with T21_train_21cmGEM.txt; give their folder")
    spec = presets()["21cmGEM"]
    return _Raw(spec.grid, columns_of(spec), {s: splits.get(s) for s in SPLITS}, {"set": "21cmGEM"})


SPLITS = ("train", "val", "test")


def _check(path, raw: _Raw, wanted) -> SignalSet:
    z, columns = raw.redshifts, raw.columns
    if len(z) < 2 or not (np.diff(z) > 0).all() or z[0] < 0:
        raise InputError(f"{path}: the redshift grid is not ascending from 0 or above; sort it and the signals with it")
    # Ranges that are not in the file are those of the training split, and its tail may have to serve for validation.
    need_train = "train" in wanted or "min" not in columns[0] or ("val" in wanted and raw.splits["val"] is None)
    read = {}
    for split in SPLITS:
        needed = split in wanted or (split == "train" and need_train)
        read[split] = _split(path, raw.splits[split], split, columns, len(z), needed, raw.layout)
    _check_unit(path, raw.unit, read)
    if raw.unit:
        read = {key: dataclasses.replace(s, signal=s.signal * np.float32(UNITS[raw.unit])) if raw.unit != "mK" else s
                for key, s in read.items()}  # fmt: skip
    parameters = _parameters(path, columns, read["train"] if len(read["train"]) else read["test"])
    if raw.splits["val"] is None and len(read["train"]) >= 8:
        cut = len(read["train"]) - len(read["train"]) // 8
        read["val"], read["train"] = read["train"].rows(slice(cut, None)), read["train"].rows(slice(cut))
    empty = Split(np.empty((0, len(columns))), np.empty((0, len(z)), np.float32))
    axes = {} if raw.layout is None else raw.layout.axes
    chosen = {s: read[s] if s in wanted else empty for s in SPLITS}
    return SignalSet(z, parameters, **chosen, record=raw.record, axes=axes)


FAINTEST = 2.0
"""mK: a set whose signals are all fainter than this is in K."""


def _check_unit(path, unit, read):
    """Notice signals in K: trained on, their emulator would be wrong by a thousand."""
    brightest = max((float(np.abs(split.signal).max()) for split in read.values() if len(split)), default=np.inf)
    looks_like_k = unit != "K" and 0 < brightest < FAINTEST
    looks_like_mk = unit == "K" and brightest > 1000.0 * FAINTEST
    if not (looks_like_k or looks_like_mk):
        return
    said = f"{path}: the signals reach {brightest:.3g} at most, which looks like {'K' if looks_like_k else 'mK'}"
    if not unit:
        raise InputError(
            f"{said}; mK are expected: say which with the attribute signal_unit, "
            f"python -c \"import h5py; h5py.File('{path.name}', 'r+').attrs['signal_unit'] = 'K'\" (or 'mK')"
        )
    warnings.warn(f"{said}, but its attribute signal_unit says {unit}", stacklevel=4)


def _parameters(path, columns, split) -> tuple[Parameter, ...]:
    parameters = []
    for i, column in enumerate(columns):
        values = split.theta[:, i]
        low, high = (column["min"], column["max"]) if "min" in column else (values.min(), values.max())
        if "min" not in column and not len(values):
            raise InputError(f"{path}: no training or test signals to take the range of {column['name']} from")
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


def _split(path, arrays, split, columns, n_channels, wanted, layout) -> Split:
    if not wanted or arrays is None:
        return Split(np.empty((0, len(columns))), np.empty((0, n_channels), np.float32))
    n = arrays[0].shape[0] if arrays[0].shape else 0
    if tuple(arrays[0].shape) != (n, len(columns)) or tuple(arrays[1].shape) != (n, n_channels):
        raise InputError(
            f"{path}: the parameters of {split} are {arrays[0].shape} and its signals {arrays[1].shape}; "
            f"expected (n, {len(columns)}) and (n, {n_channels})"
        )
    for name, array in {"parameters": arrays[0], "signal": arrays[1], **arrays[2]}.items():
        # Before anything is read: a file can declare any size.
        if isinstance(array, h5py.Dataset):
            shapes = {"signal": (n_channels,)} if layout is None else layout.shapes
            check_dataset(array, (n, *(shapes[name] if name != "parameters" else (len(columns),))))
    theta, signal = np.array(arrays[0], dtype=float), np.array(arrays[1])
    extras = {name: np.array(array) for name, array in arrays[2].items()}
    for name, array in {"parameters": theta, "signal": signal, **extras}.items():
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if bad.any():
            raise InputError(
                f"{path}: {name} of {split} has NaN or infinite values in {bad.sum()} rows, the first is "
                f"{bad.argmax()}; remove those rows"
            )
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


def write_test_set(path, data: SignalSet, n: int = 1024) -> None:
    """Write the first test signals of a set in the same layout, small enough to travel with an emulator.

    Signals are rounded to 1e-4 mK and neutral fractions to 1e-6, which halves the file.

    Parameters
    ----------
    path : path
        File to make or replace.
    data : SignalSet
        Its test split is written.
    n : int
        At most this many signals.
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
