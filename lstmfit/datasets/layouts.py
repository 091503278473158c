"""Layouts of sets of signals: where a file or folder has its parameters, its signals and its grid."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from lstmfit.datasets.columns import UNITS
from lstmfit.datasets.grids import ascending, check_grid_name, check_redshifts, redshifts_of, warn_of_frequencies
from lstmfit.datasets.npz import MAGIC, Member, Npz, reading_npz
from lstmfit.datasets.specs import SPLIT, Grid, SignalSpec, presets
from lstmfit.errors import InputError, listed, one_line
from lstmfit.hdf5 import (
    check_dataset,
    find_dataset,
    read_array,
    read_axes,
    read_numbers,
    read_text,
    read_texts,
    reading,
)
from lstmfit.outputs import OutputLayout
from lstmfit.schema import shown

SPLITS = ("train", "val", "test")
WHOLE = "all"
"""Name of the only split of a file that has none."""


@dataclass(frozen=True)
class RawSet:
    """A set as it was found, with arrays that are not read yet if they are in HDF5 or ``.npz``.

    Parameters
    ----------
    redshifts : numpy.ndarray
        (n_channels,)
    columns : list of dict
        Arguments of `Parameter` in the order of theta; without ``min``, ``max`` where the file has no ranges.
    splits : dict
        Arrays theta, signal and the further outputs by name, of each of `SPLITS` or of `WHOLE`; None for one that is
        not in the file.
    record : dict
        Provenance.
    unit : str
        Unit of the signals; empty if the file does not say it.
    layout : OutputLayout, optional
        Outputs; the signal alone by default.
    order : numpy.ndarray, optional
        (n_channels,) indices that sort the channels of the arrays by redshift.
    say_unit : str
        How to say the unit of the signals, for the message.
    """

    redshifts: np.ndarray
    columns: list[dict]
    splits: dict
    record: dict
    unit: str = ""
    layout: OutputLayout | None = None
    order: np.ndarray | None = None
    say_unit: str = "signal_unit: K (or mK) in a spec, see --spec"


def read_raw(path: Path, spec: SignalSpec | None, check) -> object:
    """Recognise a layout, and hand the set to a function while its file is open.

    Parameters
    ----------
    path : pathlib.Path
        An existing file or folder.
    spec : SignalSpec or None
        Description of a file without names.
    check : callable
        Called with a `RawSet`.

    Returns
    -------
    object
        What `check` returns.

    Raises
    ------
    InputError
        The layout is unknown, or the file is damaged or contradicts the spec.
    """
    if path.is_dir():
        return check(_read_folder(path, spec))
    with path.open("rb") as file:
        is_npz = file.read(len(MAGIC)) == MAGIC
    if is_npz:
        with reading_npz(path) as arrays:
            return check(_read_public(path, arrays) if spec is None else _read_by_spec(path, arrays, spec))
    with reading(path, "HDF5 or .npz file", "copy or make it again") as file:
        if "parameters" in file.attrs:
            if spec is not None:
                raise InputError(f"{path} names its own parameters; leave the spec out")
            return check(_read_named(path, file))
        return check(_read_public(path, file) if spec is None else _read_by_spec(path, file, spec))


# ---------------------------------------------------------------- HDF5 of `lstmfit simulate`


def _read_named(path, file) -> RawSet:
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
    check_redshifts(path, redshifts, "write redshifts, 1420.4058 MHz / frequency - 1, ascending")
    layout = read_axes(file, len(redshifts))
    keys = {split: (f"par_{split}", f"signal_{split}") for split in SPLITS}
    splits = {split: _arrays(file, *keys[split], _names(layout, split)) for split in SPLITS}
    record = {
        key: file.attrs[key].item() if hasattr(file.attrs[key], "item") else str(file.attrs[key])
        for key in ("simulator", "simulator_version", "design", "seed", "lstmfit_version")
        if key in file.attrs
    }
    return RawSet(redshifts, columns, splits, record, _unit(path, file), layout, say_unit=_attribute(path))


def _unit(path, file) -> str:
    unit = read_text(file, "signal_unit", "") if isinstance(file, h5py.File) else ""
    if unit and unit not in UNITS:
        raise InputError(f"{path}: attribute signal_unit is {shown(unit)}; expected mK or K")
    return unit


def _attribute(path) -> str:
    command = f"python -c \"import h5py; h5py.File('{path.name}', 'r+').attrs['signal_unit'] = 'K'\""
    return f"the attribute signal_unit, {command} (or 'mK')"


def _names(layout: OutputLayout | None, split: str) -> dict[str, str]:
    """Names of the arrays of the further outputs in a layout of this package."""
    return {name: f"{name}_{split}" for name in layout or () if name != "signal"}


# ---------------------------------------------------------------- arrays named by a spec


def _find(file, name):
    return file.find(name) if isinstance(file, Npz) else find_dataset(file, name)


def _arrays(file, theta: str, signal: str, others: dict[str, str]):
    """Arrays of a split, not read yet; None if the file has neither parameters nor signals of it."""
    if theta not in file and signal not in file:
        return None
    return _find(file, theta), _find(file, signal), {name: _find(file, key) for name, key in others.items()}


def _read_public(path, file) -> RawSet:
    """A public layout without names: recognised by its keys, described by its preset."""
    for name, spec in presets().items():
        if any(spec.theta.replace(SPLIT, split) in file for split in ("train", "test")):
            layout = read_axes(file, len(spec.grid)) if isinstance(file, h5py.File) else None
            return _read_by_spec(path, file, spec, name, layout)
    raise InputError(
        f"{path} is not a set of signals: it has {listed(file, 6) if len(file) else 'nothing'}; expected par_train and "
        "signal_train (21cmGEM layout) or train_data and train_labels (ARES layout); arrays of other names need --spec"
    )


def _read_by_spec(path, file, spec: SignalSpec, name: str | None = None, layout: OutputLayout | None = None) -> RawSet:
    """Arrays by the names in a spec; `name` of a public set, `layout` of the outputs if the file describes them."""
    if spec.theta is None or spec.signal is None:
        raise InputError(f"{path}: the spec does not name theta and signal; the file has {listed(file, 6)}")
    redshifts, order = _grid(path, spec, file)
    splits = {}
    for split in SPLITS if SPLIT in spec.theta else (WHOLE,):
        others = {key: array.replace(SPLIT, split) for key, array in spec.outputs.items()} or _names(layout, split)
        splits[split] = _arrays(file, spec.theta.replace(SPLIT, split), spec.signal.replace(SPLIT, split), others)
    found = [arrays for arrays in splits.values() if arrays is not None]
    if not found:
        where = f" with train, val or test for {SPLIT}" if SPLIT in spec.theta else ""
        raise InputError(f"{path}: no arrays {spec.theta} and {spec.signal}{where}; the file has {listed(file, 6)}")
    if layout is None:
        layout = _layout(path, found[0][2], len(redshifts))
    unit = _unit(path, file)
    if unit and spec.signal_unit not in (None, unit):
        raise InputError(f"{path}: attribute signal_unit is {unit}, but the spec has {spec.signal_unit}; correct one")
    say_unit = _attribute(path) if isinstance(file, h5py.File) else RawSet.say_unit
    record = {"set": name or path.name}
    return RawSet(redshifts, columns_of(spec), splits, record, unit or spec.signal_unit or "", layout, order, say_unit)


def _layout(path, extras, n_channels) -> OutputLayout:
    """Which further outputs are on the grid, and which are numbers."""
    for name, array in extras.items():
        if len(array.shape or ()) not in (1, 2) or array.shape[1:] not in ((), (n_channels,)):
            raise InputError(f"{path}: output {name} has shape {array.shape}; expected (n,) or (n, {n_channels})")
    numbers = [name for name, array in extras.items() if len(array.shape) == 1]
    return OutputLayout.of(n_channels, ("signal", *(name for name in extras if name not in numbers)), numbers)


def _grid(path, spec: SignalSpec, file=None) -> tuple[np.ndarray, np.ndarray | None]:
    """Redshifts of a spec, ascending, and the order of the channels that sorts them."""
    frequency = spec.frequency is not None
    given = spec.frequency if frequency else spec.redshifts
    if given is None or (isinstance(given, str) and file is None):
        raise InputError(
            f"{path} has no grid; add redshifts (or frequency) to the spec: {{min: 5, max: 50, n: 451}}, a list"
            + (", or the name of an array" if file is not None else "")
        )
    if isinstance(given, str):
        check_grid_name(path, given, frequency, spec.frequency_unit)
        array = _find(file, given)
        check_array(array, (None,))
        values = np.array(array, dtype=float)
        if not np.isfinite(values).all():
            raise InputError(f"{path}: {given} has {np.sum(~np.isfinite(values))} NaN or infinite values")
    else:
        values = given.values if isinstance(given, Grid) else np.array(given, dtype=float)
    if frequency:
        return ascending(path, redshifts_of(path, values, spec.frequency_unit))
    check_redshifts(path, values, "in the spec, give it as frequency with frequency_unit: UNIT")
    warn_of_frequencies(path, values)
    return ascending(path, values)


def check_array(array, shape: tuple) -> None:
    """Check the type, shape and size of an array that is not read yet; a `numpy.ndarray` is left alone.

    Parameters
    ----------
    array : h5py.Dataset, Member or numpy.ndarray
        The array.
    shape : tuple of int or None
        Expected shape; None for any length.

    Raises
    ------
    InputError
        The array has another type or shape, or declares more than it has.
    """
    if isinstance(array, h5py.Dataset):
        check_dataset(array, shape)
    elif isinstance(array, Member):
        array.check(shape)


def columns_of(spec: SignalSpec) -> list[dict]:
    """Columns of a spec; keys that it does not give are left out."""
    return [column.model_dump(exclude_none=True) for column in spec.parameters]


# ---------------------------------------------------------------- folders of text

FOLDERS = {
    "21cmGEM": ("Par_{split}_21cmGEM.txt", "T21_{split}_21cmGEM.txt"),
    "globalemu": ("{split}_data.txt", "{split}_labels.txt"),
}
"""Names of the files with parameters and signals; no header, white space between numbers, one row per signal."""


def _read_folder(folder, spec: SignalSpec | None) -> RawSet:
    """The plain-text 21cmGEM tables, or the training set of a globalemu."""
    layouts = {
        kind: {split: [folder / name.replace(SPLIT, split) for name in names] for split in SPLITS}
        for kind, names in FOLDERS.items()
    }
    there = (kind for kind, files in layouts.items() if any(f.is_file() for pair in files.values() for f in pair))
    kind = next(there, None)
    if kind is None:
        raise InputError(
            f"{folder} has no Par_train_21cmGEM.txt with T21_train_21cmGEM.txt, and no train_data.txt with "
            "train_labels.txt (globalemu); give their folder"
        )
    if spec is None and kind != "21cmGEM":
        raise InputError(
            f"{folder}: the files of globalemu do not name their parameters; add --spec 21cmgem, ares or a file"
        )
    preset = presets()["21cmGEM"]
    spec = spec or preset
    own_grid = folder / "z.txt"
    if kind == "globalemu" and own_grid.is_file():
        values = _table(own_grid).ravel()
        check_redshifts(own_grid, values, "write redshifts")
        redshifts, order = ascending(own_grid, values)
    else:
        redshifts, order = _grid(folder, spec)
    splits = {split: _pair(*pair) for split, pair in layouts[kind].items()}
    record = {"set": "21cmGEM" if spec == preset else folder.name}
    return RawSet(redshifts, columns_of(spec), splits, record, spec.signal_unit or "", order=order)


def _pair(theta, signal):
    """Parameters and signals of a split; None if there are none."""
    if not theta.is_file() and not signal.is_file():
        return None
    for file, other in ((theta, signal), (signal, theta)):
        if not file.is_file():
            raise InputError(f"{theta.parent} has {other.name}, but no {file.name}; both are needed")
    return _table(theta), _table(signal), {}


def _table(file) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            # Of an empty file, which is refused by its shape.
            warnings.simplefilter("ignore", UserWarning)
            return np.loadtxt(file, ndmin=2)
    except (ValueError, OSError, OverflowError) as error:
        raise InputError(f"{file} is not a table of numbers ({one_line(error, 120)}); copy it again") from None
