"""Emulator files: one HDF5 file per emulator, without pickles, checked when read."""

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path

import h5py
import numpy as np

from lstmfit._version import __version__
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError, listed, one_line
from lstmfit.files import replacing
from lstmfit.hdf5 import find_dataset, read_array, read_json, read_text, reading
from lstmfit.parameters import Parameter
from lstmfit.schema import shown

FORMAT = "lstmfit-emulator"
FORMAT_VERSION = 1


def axis_name(table: str, axis: str) -> str:
    """Name of the array that contains the values along a table's axis."""
    return f"{table}.{axis}"


def compact(array: np.ndarray) -> np.ndarray:
    """The array in half precision if that loses no digits, otherwise unchanged."""
    with np.errstate(over="ignore"):
        half = np.asarray(array).astype(np.float16)
    return half if half.size > 1000 and np.array_equal(half.astype(array.dtype), array) else array


def write(path, *, architecture, scaling, weights, redshifts, axes, parameters, errors, record) -> str:
    """Write an emulator file atomically.

    Parameters
    ----------
    path : path
        The file to create or replace.
    architecture, scaling : Architecture, Scaling
        The network and its scaling.
    weights : dict of str to numpy.ndarray
        Arrays named as in `Architecture.shapes`.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    axes : dict of str to dict of str to numpy.ndarray
        Grids of the table outputs.
    parameters : sequence of Parameter
        Specs in the order of theta.
    errors : dict of str to numpy.ndarray
        Test-set error arrays.
    record : dict
        Record of the training; must be serialisable as JSON.

    Returns
    -------
    str
        The checksum stored in the file.
    """
    groups = {
        "weights": {name: compact(weights[name]) for name in architecture.shapes()},
        "scaling": {f.name: np.asarray(getattr(scaling, f.name)) for f in fields(scaling)},
        "errors": {name: np.asarray(array) for name, array in errors.items()},
        "grid": {"redshifts": np.asarray(redshifts, dtype=float)}
        | {axis_name(name, axis): values for name, grids in axes.items() for axis, values in grids.items()},
    }
    header = {
        "architecture": json.dumps(architecture.to_dict()),
        "parameters": json.dumps([asdict(p) for p in parameters]),
        "record": json.dumps(record),
    }
    checksum = _checksum(header, groups)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(header)
        file.attrs.update(
            format=FORMAT, format_version=FORMAT_VERSION, checksum=checksum, lstmfit_version=__version__
        )
        for group, arrays in groups.items():
            for name, array in arrays.items():
                options = {"compression": "gzip", "shuffle": True} if array.size > 1000 else {}
                file.create_dataset(f"{group}/{name}", data=array, **options)
    return checksum


def read(path) -> dict:
    """Read an emulator file.

    Parameters
    ----------
    path : path
        A file made by `write`.

    Returns
    -------
    dict
        The keyword arguments of `write`, and ``checksum``.

    Raises
    ------
    InputError
        The file is missing, truncated, of another kind or of a newer version, or its content was changed.
    """
    with reading(path, "emulator file", "copy it again or retrain the emulator") as file:
        return _read(Path(path), file)


def _read(path, file):
    kind = file.attrs.get("format")
    if not isinstance(kind, str) or kind != FORMAT:
        raise InputError(f"{path} is an HDF5 file, but not an emulator (format {shown(kind)}, expected {FORMAT!r})")
    version = file.attrs.get("format_version", 0)
    if not isinstance(version, (int, np.integer)) or version != FORMAT_VERSION:
        raise InputError(
            f"{path} has emulator format version {one_line(version, 40)}, but this lstmfit reads {FORMAT_VERSION}; "
            "update lstmfit or retrain the emulator "
            f"(written by lstmfit {one_line(file.attrs.get('lstmfit_version'), 40)})"
        )
    header = {name: read_text(file, name) for name in HEADER}
    architecture = _make(path, "architecture", Architecture, read_json(file, "architecture", dict))
    parameters = tuple(_make(path, "a parameter", Parameter, p) for p in read_json(file, "parameters", list))
    record = _check_record(path, read_json(file, "record", dict))
    groups = _read_groups(file, architecture)
    if _checksum(header, groups) != read_text(file, "checksum"):
        raise InputError(
            f"{path}: the checksum does not match the content, so the file is damaged; copy it again or retrain the "
            "emulator"
        )
    return {
        "architecture": architecture,
        "scaling": Scaling(**groups["scaling"]),
        "weights": {name: np.asarray(array, np.float32) for name, array in groups["weights"].items()},
        "redshifts": groups["grid"]["redshifts"],
        "axes": {
            name: {axis: groups["grid"][axis_name(name, axis)] for axis in axes}
            for name, axes in architecture.tables.items()
        },
        "parameters": parameters,
        "errors": groups.get("errors", {}),
        "record": record,
        "checksum": read_text(file, "checksum"),
    }


HEADER = ("architecture", "parameters", "record")


def _make(path, what, kind, content):
    """Create a dataclass object from JSON content."""
    if not isinstance(content, dict):
        raise InputError(f"{path}: {what} is {shown(content)}, but a JSON object is expected; copy the file again")
    try:
        return kind(**content)
    except TypeError as error:
        raise InputError(
            f"{path}: {what} is not valid in this version of lstmfit ({one_line(error, 120)}); update lstmfit"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _read_groups(file, a: Architecture) -> dict[str, dict[str, np.ndarray]]:
    """Read the arrays of every group and check that they have the shapes of the architecture."""
    n, histories, scalars = a.n_channels, len(a.histories), a.n_scalars
    p = a.n_params
    declared: dict[str, dict] = {
        "weights": a.shapes(),
        "scaling": {"log": (p,), "low": (p,), "high": (p,), "offset": (histories, n), "scale": (histories,),
                    "scalar_offset": (scalars,), "scalar_scale": (scalars,)},
        "errors": {"bias": (n,), "rms": (n,), "covariance": (n, n), "relative": (None,),
                   "teacher_rms": (n,)}
        | {f"rms_{name}": (n,) for name in a.histories} | {f"rms_{name}": () for name in a.scalars}
        | {f"rms_{name}": tuple(axes.values()) for name, axes in a.tables.items()},
        "grid": {"redshifts": (n,)}
        | {axis_name(name, axis): (m,) for name, axes in a.tables.items() for axis, m in axes.items()},
    }  # fmt: skip
    groups: dict[str, dict] = {}
    for group, shapes in declared.items():
        if group not in file and group == "errors":
            continue
        if not isinstance(file.get(group), h5py.Group):
            raise InputError(
                f"{file.filename} is not a complete emulator file: group {group} is missing; copy it again or retrain "
                "the emulator"
            )
        missing = [name for name in shapes if name not in file[group] and group != "errors"]
        # Additional error arrays are informative only; additional arrays in other groups belong to another version.
        unknown = [name for name in file[group] if name not in shapes and group != "errors"]
        if missing or unknown:
            said = f"{group}/{listed(missing)} missing" if missing else f"{group}/{listed(unknown)} unknown"
            raise InputError(
                f"{file.filename} is not a complete emulator file: {said}; copy it again or retrain the emulator"
            )
        groups[group] = {
            name: read_array(
                file[group],
                name,
                shapes[name] if name in shapes else find_dataset(file[group], name).shape,
                "flag" if name == "log" else "number",
            )
            for name in file[group]
        }
    return groups


def _check_record(path, record):
    """Check the types of the record's entries that the package uses; the others are informative only."""
    test, simulator = record.get("test", {}), record.get("simulator", "")
    numbers = isinstance(test, dict) and all(type(v) in (int, float) for v in test.values())
    if not numbers or not isinstance(simulator, str):
        raise InputError(
            f"{path}: its record has test {shown(test)} and simulator {shown(simulator)}, but a mapping to numbers and "
            "a name are expected; copy it again or retrain the emulator"
        )
    return record


def _checksum(header, groups):
    digest = hashlib.sha256()
    for name in sorted(header):
        digest.update(f"{name}={header[name]};".encode())
    for group in sorted(groups):
        for name in sorted(groups[group]):
            array = np.ascontiguousarray(groups[group][name])
            digest.update(f"{group}/{name}:{array.dtype.str}:{array.shape};".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
