"""One file is one emulator: HDF5, no pickle, checked when it is read."""

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path

import h5py
import numpy as np

from lstmfit._version import __version__
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError
from lstmfit.files import replacing
from lstmfit.parameters import Parameter

FORMAT = "lstmfit-emulator"
FORMAT_VERSION = 1


def write(path, *, architecture, scaling, weights, redshifts, parameters, errors, record) -> str:
    """Write an emulator file beside and rename it into place.

    Parameters
    ----------
    path : path
        The file to make or replace.
    architecture, scaling : Architecture, Scaling
        The network and its scaling.
    weights : dict of str to numpy.ndarray
        Arrays named as in `Architecture.shapes`.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    parameters : sequence of Parameter
        Specs in the order of theta.
    errors : dict of str to numpy.ndarray
        Test-set error arrays.
    record : dict
        How it was trained; JSON-able.

    Returns
    -------
    str
        The checksum stored in the file.
    """
    groups = {
        "weights": {name: weights[name] for name in architecture.shapes()},
        "scaling": {f.name: np.asarray(getattr(scaling, f.name)) for f in fields(scaling)},
        "errors": {name: np.asarray(array) for name, array in errors.items()},
        "grid": {"redshifts": np.asarray(redshifts, dtype=float)},
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
        The file is missing, cut short, of another kind or of a newer version, or its content was changed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no emulator file {path}; `lstmfit emulators` lists the shipped ones")
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file)
    except (OSError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a whole emulator file ({error}); copy or train it again") from None


def _read(path, file):
    kind, version = file.attrs.get("format"), int(file.attrs.get("format_version", 0))
    if kind != FORMAT:
        raise InputError(f"{path} is an HDF5 file but not an emulator (format {kind!r}, expected {FORMAT!r})")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has emulator format version {version}, this lstmfit reads {FORMAT_VERSION}; "
            f"update lstmfit or retrain (the file was written by lstmfit {file.attrs.get('lstmfit_version')})"
        )
    groups = {group: {name: file[f"{group}/{name}"][()] for name in file[group]}
              for group in ("weights", "scaling", "errors", "grid") if group in file}
    header = {name: file.attrs[name] for name in ("architecture", "parameters", "record")}
    if _checksum(header, groups) != file.attrs["checksum"]:
        raise InputError(f"{path}: the checksum does not fit the content: the file is damaged; copy or train it again")
    architecture = Architecture(**json.loads(header["architecture"]))
    architecture.check(groups["weights"])
    return {
        "architecture": architecture,
        "scaling": Scaling(**groups["scaling"]),
        "weights": groups["weights"],
        "redshifts": groups["grid"]["redshifts"],
        "parameters": tuple(Parameter(**p) for p in json.loads(header["parameters"])),
        "errors": groups.get("errors", {}),
        "record": json.loads(header["record"]),
        "checksum": str(file.attrs["checksum"]),
    }


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
