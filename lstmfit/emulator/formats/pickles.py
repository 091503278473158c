"""Untrusted pickles, read without running any code that they refer to.

A pickle is a program that can call any function of any module. Here it can only build numbers, text, lists,
dictionaries and arrays. Every name in it is looked up in a short list of harmless replacements, which only store their
arguments; any other name raises an error before anything is called.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError, one_line
from lstmfit.schema import shown

MOST_BYTES = 1 << 30
"""Maximum size of a file, also when uncompressed; emulators of the global signal have a few MB."""
DAMAGE = (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, ValueError, TypeError, KeyError, IndexError,
          AttributeError, OverflowError, MemoryError, RecursionError, NotImplementedError, RuntimeError)  # fmt: skip
"""Exceptions that pickle and zipfile raise for damaged or malicious files."""


class Inert:
    """Replacement for an object of a known class, which only stores the object's attributes.

    Attributes
    ----------
    kind : str
        ``module.Class`` of the original object.
    state : dict
        Attributes of the original object.
    """

    kind = ""

    def __init__(self, *_):
        self.state: dict = {}

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise ValueError(f"the state of {self.kind} is {shown(state)}")
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Unpickler that only knows the names in a table; `where` is for messages."""

    def __init__(self, data: bytes, where, names: dict, storages=None):
        super().__init__(io.BytesIO(data))
        self._where, self._names, self._storages = where, names, storages

    def find_class(self, module, name):
        found = self._names.get(f"{module}.{name}")
        if found is None:
            raise InputError(
                f"{self._where} refers to {one_line(f'{module}.{name}', 80)}, but only arrays and plain values are "
                "read from a pickle and no code is run; export only the weights"
            )
        return found

    def persistent_load(self, pid):
        if self._storages is None:
            raise ValueError(f"reference to {shown(pid)}")
        return self._storages(pid)


def read_plain(path):
    """Read a pickle of plain values: dictionaries, lists, strings, numbers, booleans.

    Parameters
    ----------
    path : path
        A ``.pkl`` file.

    Raises
    ------
    InputError
        The file is missing, damaged, too large, or contains anything but plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file {path}")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB, but a pickle of a few settings is expected; copy it again"
        )
    return _load(_Unpickler(path.read_bytes(), path, {}), path)


def _load(unpickler, path):
    try:
        return unpickler.load()
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{path} cannot be read as a pickle ({one_line(error, 120)}); copy it again") from None


STORAGES = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8",
            "IntStorage": "<i4", "BoolStorage": "?"}  # fmt: skip
"""Data types of torch."""


def is_torch(path) -> bool:
    """Whether a file was written by ``torch.save``: a zip archive with one ``data.pkl``."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _root(archive) is not None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _root(archive) -> str | None:
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    return names[0].removesuffix("data.pkl") if len(names) == 1 else None


def read_torch(path, classes=()):
    """Read a file written by ``torch.save`` without torch, with its tensors as arrays.

    Parameters
    ----------
    path : path
        The file, written by torch 1.6 or newer.
    classes : sequence of str
        ``module.Class`` of the objects that it may contain; each is returned as an `Inert`.

    Returns
    -------
    object
        The saved object: a dictionary of arrays, or the `Inert` of a module.

    Raises
    ------
    InputError
        The file is missing, damaged, too large, or refers to a class or function other than those of tensors and
        `classes`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive)
            size = sum(entry.file_size for entry in archive.infolist())
            if root is None:
                raise InputError(f"{path} was not written by torch.save: it has no data.pkl; copy it again")
            if size > MOST_BYTES:
                raise InputError(
                    f"{path} unpacks to {size / 1e6:.0f} MB, but an emulator has a few MB; use the right file"
                )
            if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
                raise InputError(f"{path} was saved on a big-endian machine; save it again on a little-endian one")
            pickled, storages = archive.read(f"{root}data.pkl"), _Storages(archive, root)
            return _load(_Unpickler(pickled, path, _torch_names(classes), storages), path)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            f"{path} is not a complete file of torch.save ({one_line(error, 120)}); copy it again"
        ) from None


def _torch_names(classes) -> dict:
    return {
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_parameter": lambda data, *_: _checked(data),
        "collections.OrderedDict": OrderedDict,
        # Modules contain empty sets, whose type has its Python 2 name in a pickle.
        "__builtin__.set": lambda items=(): list(items),
        "builtins.set": lambda items=(): list(items),
        **{f"torch.{name}": dtype for name, dtype in STORAGES.items()},
        **{name: type("Inert", (Inert,), {"kind": name}) for name in classes},
    }


class _Storages:
    """Arrays of an archive, looked up by the references in its pickle."""

    def __init__(self, archive, root):
        self._archive, self._root = archive, root

    def __call__(self, pid):
        kind, dtype, key, _device, n = pid
        if kind != "storage" or dtype not in STORAGES.values() or not isinstance(key, str) or not isinstance(n, int):
            raise ValueError(f"reference to {shown(pid)}")
        array = np.frombuffer(self._archive.read(f"{self._root}data/{key}"), dtype)
        if len(array) != n:
            raise ValueError(f"storage {shown(key)} has {len(array)} numbers, not {shown(n)}")
        return array


def _checked(array) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{shown(array)} instead of an array")
    return array


def _rebuild_tensor(storage, offset, shape, strides, *_):
    """Build a tensor from its storage, with strides in elements; checks that every element is within the storage."""
    storage = _checked(storage)
    sizes = [offset, *shape, *strides]
    if len(shape) != len(strides) or not all(type(v) is int and v >= 0 for v in sizes):
        raise ValueError(f"a tensor of shape {shown(shape)}, strides {shown(strides)}")
    n = int(np.prod(shape, dtype=object))
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    # A tensor that repeats elements of its storage could have any size.
    if n > len(storage) or (n and last >= len(storage)):
        raise ValueError(f"a tensor of shape {shown(shape)} in a storage of {len(storage)} numbers")
    if not n:
        return np.empty(shape, storage.dtype)
    strided = np.lib.stride_tricks.as_strided(
        storage[offset:], shape, [stride * storage.itemsize for stride in strides], writeable=False
    )
    return strided.copy()
