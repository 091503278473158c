"""Reading ``.npz`` files of any origin: each array is checked against its header before it is read."""

import contextlib
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lstmfit.errors import InputError, listed, one_line
from lstmfit.hdf5 import KINDS, MOST_BYTES

MAGIC = b"PK\x03\x04"
"""First bytes of a zip archive, which an ``.npz`` file is."""
LARGEST_RATIO = 200
"""Largest ratio of an array above 16 MB to its compressed size; zeros reach 1000."""
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, OSError, ValueError, EOFError, KeyError, RuntimeError,
          TypeError, MemoryError, OverflowError, SyntaxError, tokenize.TokenError, IndexError)  # fmt: skip
"""Exceptions that zipfile and NumPy raise for a damaged file."""


@dataclass(frozen=True)
class Member:
    """An array of the file, not yet read; `numpy.array` reads it.

    Parameters
    ----------
    where : str
        File and name of the array, for messages.
    archive : zipfile.ZipFile
        The open file.
    info : zipfile.ZipInfo
        The entry in the archive.
    shape : tuple of int
        Shape in the header.
    dtype : numpy.dtype
        Type in the header.
    size : int
        Number of bytes after the header.
    """

    where: str
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype
    size: int

    def check(self, shape: tuple) -> None:
        """Check type, shape and size without reading the array.

        Parameters
        ----------
        shape : tuple of int or None
            Expected shape; None for any length.

        Raises
        ------
        InputError
            The array has another type or shape, or declares another size than it has.
        """
        if self.dtype.kind not in KINDS["number"] or self.dtype.itemsize > 16:
            raise InputError(f"{self.where} has type {self.dtype}, but numbers are expected")
        if len(self.shape) != len(shape) or any(w not in (None, n) for w, n in zip(shape, self.shape)):
            wanted = ", ".join("n" if w is None else str(w) for w in shape) + ("," if len(shape) == 1 else "")
            raise InputError(f"{self.where} has shape {self.shape}; expected ({wanted})")
        declared = math.prod(self.shape) * self.dtype.itemsize
        if declared > MOST_BYTES or declared > LARGEST_RATIO * self.info.compress_size + 2**24 or declared != self.size:
            raise InputError(
                f"{self.where} declares {declared:.3g} bytes but has {self.size:.3g} (compressed "
                f"{self.info.compress_size:.3g}); create the file again"
            )

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        self.check(self.shape)
        with self.archive.open(self.info) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
        return array if dtype is None else array.astype(dtype, copy=False)


class Npz(Mapping):
    """Arrays of an ``.npz`` file by name, read when they are used.

    Parameters
    ----------
    archive : zipfile.ZipFile
        The open file.
    """

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._entries = {i.filename[: -len(".npy")]: i for i in archive.infolist() if i.filename.endswith(".npy")}

    def __getitem__(self, name: str) -> Member:
        return _member(self._archive, self._entries[name], f"{self._archive.filename}: {name}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str) -> Member:
        """An array by name.

        Raises
        ------
        InputError
            There is no such array.
        """
        if name not in self:
            raise InputError(f"{self._archive.filename}: array {name} is missing; available are {listed(self, 6)}")
        return self[name]


def _member(archive, info, where) -> Member:
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            # Version 3 is for structured arrays with names in Unicode.
            raise InputError(f"{where} is an .npy array of version {version[0]}, but an array of numbers is expected")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        return Member(where, archive, info, shape, dtype, info.file_size - stream.tell())


@contextlib.contextmanager
def reading_npz(path):
    """Open an ``.npz`` file for reading; errors of a damaged file become messages of one line.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Yields
    ------
    Npz

    Raises
    ------
    InputError
        The file is damaged or of another kind.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield Npz(archive)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            f"{path} is not a complete .npz file ({one_line(error, 120)}); copy or create it again"
        ) from None
