"""Read HDF5 files of any origin. Types and shapes are checked against the expected ones before data are read."""

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
"""Maximum size of an array. A file can declare more than it contains, since unwritten data take no space."""
KINDS = {"number": "iuf", "flag": "b", "integer": "iu"}


@contextlib.contextmanager
def reading(path, what: str, remedy: str):
    """Open a file for reading; errors of HDF5 become messages of one line.

    Parameters
    ----------
    path : path
        The file.
    what : str
        Description of the expected file, for messages: "emulator file".
    remedy : str
        How to fix a damaged file, for messages: "copy it again".

    Yields
    ------
    h5py.File

    Raises
    ------
    InputError
        There is no such file, or it is damaged or of another kind.
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
    # For damage inside the file, h5py raises RuntimeError, KeyError or ValueError.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise InputError(f"{path} is not a complete {what} ({one_line(error, 120)}); {remedy}") from None


def read_array(group, name: str, shape: tuple, kind: str = "number", finite: bool = True) -> np.ndarray:
    """Read a dataset.

    Parameters
    ----------
    group : h5py.Group
        Group that contains the dataset.
    name : str
        Name of the dataset in the group.
    shape : tuple of int or None
        Expected shape; None for any length.
    kind : {"number", "integer", "flag"}
        Expected kind of values.
    finite : bool
        Whether NaN and infinite values are errors.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    InputError
        The dataset is missing, is a group, has another type or shape, is too large, or has values that are not finite.
    """
    dataset = find_dataset(group, name)
    check_dataset(dataset, shape, kind)
    array = dataset[()]
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise InputError(f"{_where(dataset)} has {bad} NaN or infinite values out of {array.size}; remove them")
    return array


def find_dataset(group, name: str) -> h5py.Dataset:
    """Find a dataset by name without reading it.

    Raises
    ------
    InputError
        There is no such dataset, or it is a group, a broken link or a link to another file.
    """
    found, parts = group, [part for part in name.split("/") if part]
    for part in parts:
        # Check every part of the path, because a group in it may be a link to another file.
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) and part in found else None
        if link is None:
            raise InputError(f"{_where(group)}: dataset {name} is missing; available are {listed(group, 6)}")
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{_where(group)}: {name} is a link; store the data in the file itself")
        found = found[part]
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{_where(group)}: {name} is a group, but a dataset is expected")
    return found


def check_dataset(dataset, shape: tuple, kind: str = "number") -> None:
    """Check the type, shape and size of a dataset without reading it; see `read_array`."""
    where = _where(dataset)
    if dataset.shape is None or dataset.dtype.kind not in KINDS[kind] or dataset.dtype.itemsize > 16:
        raise InputError(f"{where} has type {dataset.dtype}, but {'boolean' if kind == 'flag' else kind}s are expected")
    fits = len(dataset.shape) == len(shape) and all(w is None or w == n for w, n in zip(shape, dataset.shape))
    if not fits:
        wanted = ", ".join("n" if w is None else str(w) for w in shape) + ("," if len(shape) == 1 else "")
        raise InputError(f"{where} has shape {tuple(dataset.shape)}; expected ({wanted})")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if size > MOST_BYTES or size > 2000 * dataset.id.get_storage_size() + 2**24:
        held = dataset.id.get_storage_size()
        raise InputError(f"{where} declares {_bytes(size)} but contains {_bytes(held)}; create the file again")
    if dataset.external:
        raise InputError(f"{where} refers to another file; store the data in the file itself")


def read_text(holder, name: str, default: str | None = None) -> str:
    """Read a string attribute.

    Raises
    ------
    InputError
        The attribute is missing and has no default, or is not a string.
    """
    if name not in holder.attrs:
        if default is None:
            raise InputError(f"{_where(holder)}: attribute {name} is missing")
        return default
    value = holder.attrs[name]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(value)}, but a string is expected")
    return value


def read_texts(holder, name: str, n: int | None = None) -> list[str]:
    """Read an attribute that is an array of strings, of length `n` if given.

    Raises
    ------
    InputError
        The attribute is missing, is not an array of strings, or has another length.
    """
    values = _attribute(holder, name, n)
    values = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values]
    if not all(isinstance(v, str) for v in values):
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(values)}, but strings are expected")
    return [str(v) for v in values]


def read_numbers(holder, name: str, n: int, kind: str = "number") -> list:
    """Read an attribute that is an array of `n` finite numbers, or of booleans with ``kind="flag"``.

    Raises
    ------
    InputError
        The attribute is missing, is not such an array, or has another length.
    """
    values = np.asarray(_attribute(holder, name, n))
    # Booleans may also be written as 0 and 1.
    good = values.dtype.kind == "b" or (values.dtype.kind in "iu" and np.isin(values, (0, 1)).all())
    if kind != "flag":
        good = values.dtype.kind in "iuf" and np.isfinite(values).all()
    if not good:
        what = "booleans" if kind == "flag" else "finite numbers"
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(values.tolist())}, but {what} are expected")
    return [bool(v) if kind == "flag" else float(v) for v in values]


def _attribute(holder, name, n):
    if name not in holder.attrs:
        raise InputError(f"{_where(holder)}: attribute {name} is missing")
    values = holder.attrs[name]
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(values)}, but a list is expected")
    if n is not None and len(values) != n:
        raise InputError(f"{_where(holder)}: attribute {name} has {len(values)} entries, but {n} are expected")
    return values.tolist()


def read_json(holder, name: str, kind: type):
    """Read an attribute that is JSON of a given type, dict or list.

    Raises
    ------
    InputError
        The attribute is missing, is not JSON, or has another type.
    """
    text = read_text(holder, name)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(text)}, but JSON is expected") from None
    if not isinstance(value, kind):
        what = "object" if kind is dict else "list"
        raise InputError(f"{_where(holder)}: attribute {name} is {shown(text)}, but a JSON {what} is expected")
    return value


GRID = "redshifts"
"""Name of the axis of a history, in the description of outputs."""


def write_axes(file, layout: OutputLayout) -> None:
    """Describe the outputs in a file: the attribute ``outputs`` in JSON, and the grids of tables in the group ``axes``.

    Parameters
    ----------
    file : h5py.File
        The file, open for writing.
    layout : OutputLayout
        Layout of the outputs; each is a history on the grid ``redshifts``, a number, or a table on its own axes.
    """
    on = {name: [] if name in layout.scalars else list(layout.axes.get(name, [GRID])) for name in layout}
    file.attrs["outputs"] = json.dumps(on)
    for name, grids in layout.axes.items():
        for axis, values in grids.items():
            file[f"axes/{name}/{axis}"] = values


def read_axes(file, n_channels: int) -> OutputLayout:
    """Read the description of the outputs in a file, see `write_axes`.

    Parameters
    ----------
    file : h5py.File
        A set of signals. Those of lstmfit 0.1 have no description; their possible outputs are x_HI and tau.
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
        raise InputError(
            f"{_where(file)}: attribute outputs is {shown(on)}, but a list of axes is expected for each output, "
            "including signal"
        )
    grids = {
        name: {axis: read_array(file, f"axes/{name}/{axis}", (None,)).astype(float) for axis in axes}
        for name, axes in on.items()
        if axes not in ([], [GRID])
    }
    histories = ("signal", *(n for n, axes in on.items() if axes == [GRID] and n != "signal"))
    return OutputLayout.of(n_channels, histories, [n for n, axes in on.items() if not axes], grids)


def _where(item) -> str:
    """File and name of an item, for messages."""
    name = "" if item.name in (None, "/") else item.name.lstrip("/")
    return f"{Path(item.file.filename)}: {name}" if name else f"{Path(item.file.filename)}"


def _bytes(n) -> str:
    power = min(4, max(0, int(math.log10(max(n, 1)) // 3)))
    return f"{n / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
