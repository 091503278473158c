"""Reading HDF5 files of any origin: everything has a declared type and shape, and is held to it before it is read."""

import contextlib
import json
import math
from pathlib import Path

import h5py
import numpy as np

from lstmfit.errors import InputError, listed, one_line
from lstmfit.files import user_path
from lstmfit.outputs import OutputLayout
from lstmfit.schema import shown

MOST_BYTES = 64 * 2**30
"""Of one array. A file can declare a thousand times what it holds, since what was never written takes no place."""
KINDS = {"number": "iuf", "flag": "b", "integer": "iu"}


@contextlib.contextmanager
def reading(path, what: str, remedy: str):
    """Open a file for reading; whatever HDF5 finds wrong with it becomes one line.

    Parameters
    ----------
    path : path
        The file.
    what : str
        What it should be: "emulator file".
    remedy : str
        What to do about a damaged one: "copy or train it again".

    Yields
    ------
    h5py.File

    Raises
    ------
    InputError
        There is no such file, or it is damaged or something else.
    """
    path = user_path(path, what)
    if not path.is_file():
        raise InputError(f"no {what} {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    # RuntimeError, KeyError and ValueError are what h5py makes of damage inside the file.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise InputError(f"{path} is not a whole {what} ({one_line(error, 120)}); {remedy}") from None


def read_array(group, name: str, shape: tuple, kind: str = "number", finite: bool = True) -> np.ndarray:
    """Read a dataset.

    Parameters
    ----------
    group : h5py.Group
        Where it is.
    name : str
        Its name there.
    shape : tuple of int or None
        What its shape must be; None for any length.
    kind : {"number", "integer", "flag"}
        What it holds.
    finite : bool
        Whether NaN and infinity are refused.

    Raises
    ------
    InputError
        It is missing, a group, of another type or shape, too large, or not finite.
    """
    dataset = find_dataset(group, name)
    check_dataset(dataset, shape, kind)
    array = dataset[()]
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise InputError(f"{_where(dataset)} has {bad} NaN or infinite values of {array.size}; finite ones are needed")
    return array


def find_dataset(group, name: str) -> h5py.Dataset:
    """A dataset by name, not read yet.

    Raises
    ------
    InputError
        There is no such dataset, or it is a group or a link that leads nowhere or to another file.
    """
    found, parts = group, [part for part in name.split("/") if part]
    for part in parts:
        # Each part of a path: a group on the way may be a link to another file.
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) and part in found else None
        if link is None:
            raise InputError(f"{_where(group)}: dataset {name} is missing; it has {listed(group, 6)}")
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{_where(group)}: {name} is a link; the data themselves are needed")
        found = found[part]
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{_where(group)}: {name} is a group; a dataset is needed")
    return found


def check_dataset(dataset, shape: tuple, kind: str = "number") -> None:
    """Hold a dataset to its declared type and shape without reading it; see `read_array`."""
    where = _where(dataset)
    if dataset.shape is None or dataset.dtype.kind not in KINDS[kind] or dataset.dtype.itemsize > 16:
        raise InputError(f"{where} is of type {dataset.dtype}; {'truth value' if kind == 'flag' else kind}s are needed")
    fits = len(dataset.shape) == len(shape) and all(w is None or w == n for w, n in zip(shape, dataset.shape))
    if not fits:
        wanted = ", ".join("n" if w is None else str(w) for w in shape) + ("," if len(shape) == 1 else "")
        raise InputError(f"{where} has shape {tuple(dataset.shape)}; expected ({wanted})")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if size > MOST_BYTES or size > 2000 * dataset.id.get_storage_size() + 2**24:
        held = dataset.id.get_storage_size()
        raise InputError(f"{where} declares {_bytes(size)} and holds {_bytes(held)}; make the file again")
    if dataset.external:
        raise InputError(f"{where} lies in another file; the data themselves are needed")


def read_text(holder, name: str, default: str | None = None) -> str:
    """A text attribute.

    Raises
    ------
    InputError
        It is missing without a default, or not text.
    """
    if name not in holder.attrs:
        if default is None:
            raise InputError(f"{_where(holder)}: attribute {name} is missing")
        return default
    value = holder.attrs[name]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(value)}; text is needed")
    return value


def read_texts(holder, name: str, n: int | None = None) -> list[str]:
    """An attribute that is an array of texts, of length `n` where that is given.

    Raises
    ------
    InputError
        It is missing, not that, or of another length.
    """
    values = _attribute(holder, name, n)
    values = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values]
    if not all(isinstance(v, str) for v in values):
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(values)}; texts are needed")
    return [str(v) for v in values]


def read_numbers(holder, name: str, n: int, kind: str = "number") -> list:
    """An attribute that is an array of `n` finite numbers (or truth values, ``kind="flag"``).

    Raises
    ------
    InputError
        It is missing, not that, or of another length.
    """
    values = np.asarray(_attribute(holder, name, n))
    # Truth values are written as such, or as 0 and 1.
    good = values.dtype.kind == "b" or (values.dtype.kind in "iu" and np.isin(values, (0, 1)).all())
    if kind != "flag":
        good = values.dtype.kind in "iuf" and np.isfinite(values).all()
    if not good:
        what = "truth values" if kind == "flag" else "finite numbers"
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(values.tolist())}; {what} are needed")
    return [bool(v) if kind == "flag" else float(v) for v in values]


def _attribute(holder, name, n):
    if name not in holder.attrs:
        raise InputError(f"{_where(holder)}: attribute {name} is missing")
    values = holder.attrs[name]
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(values)}; a list is needed")
    if n is not None and len(values) != n:
        raise InputError(f"{_where(holder)}: attribute {name} has {len(values)} entries; {n} are needed")
    return values.tolist()


def read_json(holder, name: str, kind: type):
    """An attribute that is JSON of a type: dict or list.

    Raises
    ------
    InputError
        It is missing, not JSON, or of another type.
    """
    text = read_text(holder, name)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(text)}; JSON is needed") from None
    if not isinstance(value, kind):
        what = "an object" if kind is dict else "a list"
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(text)}; {what} in JSON is needed")
    return value


GRID = "redshifts"
"""What a history lies on, in the description of outputs."""


def write_axes(file, layout: OutputLayout) -> None:
    """Describe outputs in a file: the attribute ``outputs`` in JSON, grids of tables in the group ``axes``.

    Parameters
    ----------
    file : h5py.File
        Open for writing.
    layout : OutputLayout
        Of the outputs; each is on the grid ``redshifts``, a number, or on axes of its own.
    """
    on = {name: [] if name in layout.scalars else list(layout.axes.get(name, [GRID])) for name in layout}
    file.attrs["outputs"] = json.dumps(on)
    for name, grids in layout.axes.items():
        for axis, values in grids.items():
            file[f"axes/{name}/{axis}"] = values


def read_axes(file, n_channels: int) -> OutputLayout:
    """The outputs that a file describes, see `write_axes`.

    Parameters
    ----------
    file : h5py.File
        A set of signals; one of lstmfit 0.1 has no description, and x_HI and tau where there are such.
    n_channels : int
        Length of the redshift grid.

    Raises
    ------
    InputError
        The description is damaged, or has no signal.
    """
    if "outputs" not in file.attrs:
        found = {name for name in ("x_HI", "tau") for split in ("train", "val", "test") if f"{name}_{split}" in file}
        return OutputLayout.of(n_channels, ("signal", *({"x_HI"} & found)), tuple({"tau"} & found))
    on = read_json(file, "outputs", dict)
    if "signal" not in on or not all(isinstance(n, list) and all(isinstance(a, str) for a in n) for n in on.values()):
        raise InputError(f"{_where(file)}: attribute outputs is {shown(on)}; names with lists of axes are needed")
    grids = {
        name: {axis: read_array(file, f"axes/{name}/{axis}", (None,)).astype(float) for axis in axes}
        for name, axes in on.items()
        if axes not in ([], [GRID])
    }
    histories = ("signal", *(n for n, axes in on.items() if axes == [GRID] and n != "signal"))
    return OutputLayout.of(n_channels, histories, [n for n, axes in on.items() if not axes], grids)


def _where(item) -> str:
    """File and place, for messages."""
    name = "" if item.name in (None, "/") else item.name.lstrip("/")
    return f"{Path(item.file.filename)}: {name}" if name else f"{Path(item.file.filename)}"


def _bytes(n) -> str:
    power = min(4, max(0, int(math.log10(max(n, 1)) // 3)))
    return f"{n / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
