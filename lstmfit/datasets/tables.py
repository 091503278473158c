"""Tables of numbers in common formats (text, .npy, .npz), recognised by their content rather than by their name."""

import io
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lstmfit.datasets.columns import Heading
from lstmfit.errors import InputError, listed, one_line
from lstmfit.schema import shown

MOST_BYTES = 500_000_000
EXPECTED = "expected a table of numbers: text separated by commas, semicolons, tabs or spaces, or a .npy or .npz file"
NOT_A_NUMBER = ["nan", "NaN", "NAN", "-nan", "-NaN", "--"]
"""Forms of a missing value: C, NumPy, masked arrays."""
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Table:
    """Columns of a file.

    Parameters
    ----------
    name : str
        Name of the file.
    names : list of str or None
        Names in the header; None if there is no header.
    frame : pandas.DataFrame
        (n, m), columns in the order of the file.
    empty : numpy.ndarray
        (n, m), True where the file contains NaN explicitly, but not for a missing cell.
    """

    name: str
    names: list | None
    frame: pd.DataFrame
    empty: np.ndarray

    @property
    def headings(self) -> list[Heading]:
        """Headings of the columns; empty names if there is no header."""
        names = [""] * self.frame.shape[1] if self.names is None else self.names
        return [Heading.of(name) for name in names]

    def number(self, which) -> int:
        """Number of a column given by its number or its name.

        Raises
        ------
        InputError
            There is no such column.
        """
        if not isinstance(which, str):
            if not 0 <= which < self.frame.shape[1]:
                raise InputError(f"{self.name}: no column {which}; give a number from 0 to {self.frame.shape[1] - 1}")
            return int(which)
        if self.names is None:
            raise InputError(f"{self.name}: no column {shown(which)}, as there is no header; give its number, from 0")
        if self.names.count(which) > 1:
            raise InputError(
                f"{self.name}: {self.names.count(which)} columns have the name {shown(which)}; give a number"
            )
        if which not in self.names:
            known = one_line(", ".join(self.names), 200)
            raise InputError(f"{self.name}: no column {shown(which)}; the header has {known}")
        return self.names.index(which)

    def column(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Values (n,) of a column, NaN where there is no number, and a mask (n,) of explicit NaN in the file."""
        return _to_numbers(self.frame.iloc[:, number]), self.empty[:, number]

    def flags(self, number: int) -> np.ndarray:
        """Mask (n,) of a column of flags: True for a number other than zero, and for true, t and yes.

        Raises
        ------
        InputError
            A value is not a number, and not one of true, t, yes, false, f, no.
        """
        words = {"true": 1.0, "t": 1.0, "yes": 1.0, "false": 0.0, "f": 0.0, "no": 0.0}
        column = self.frame.iloc[:, number]
        text = column.astype(str).str.strip().str.lower()
        values = _to_numbers(text.map(words).where(text.isin(words), column))
        bad = np.flatnonzero(np.isnan(values) & ~self.empty[:, number])
        if len(bad):
            raise InputError(
                f"{self.name}: flag is {shown(str(column.iloc[bad[0]]))} in data row {bad[0] + 1}; expected 0 or False "
                "for a good channel, another number or True for a flagged one"
            )
        return values != 0.0


def _to_numbers(column) -> np.ndarray:
    """Values (n,) of a column, NaN where there is no number."""
    try:
        return pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    except OverflowError:
        # pandas overflows on an integer of 400 digits, unless it is converted from text.
        return pd.to_numeric(column.astype(str), errors="coerce").to_numpy(dtype=float)


def read_table(path, least: int = 2) -> Table:
    """Read a table.

    Parameters
    ----------
    path : path
        Text with or without a header line, and with comments after # (a last comment line with a name for each column
        is also a header); or a ``.npy`` or ``.npz`` file with a 2-D array, a structured array or named columns.
    least : int
        Minimum number of columns.

    Raises
    ------
    InputError
        There is no such file, or it is not a table of numbers.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(f"{path} has {size / 1e9:.1f} GB, which is too large for a spectrum; {EXPECTED}")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; {EXPECTED}") from None
    if content.startswith((b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")):
        return _from_numpy(path, content, least)
    return _from_text(path, content, least)


def _from_numpy(path, content, least):
    try:
        arrays = _arrays(path, content)
        names, frame = _as_columns(arrays)
    except Exception as error:
        # NumPy evaluates headers and unpacks archives, so damaged ones can raise almost any exception.
        raise InputError(f"{path.name} cannot be read as a spectrum ({one_line(error, 140)}); {EXPECTED}") from None
    return _checked(Table(path.name, names, frame, frame.isna().to_numpy()), least)


def _arrays(path, content):
    """Arrays by name; that of a .npy file has an empty name. Nothing is unpickled."""
    if content.startswith(b"\x93NUMPY"):
        # Memory mapping raises an error before allocation if the header declares more than the file contains.
        return {"": np.array(np.load(path, mmap_mode="r", allow_pickle=False))} if _has_elements(path) else {}
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        if sum(entry.file_size for entry in file.infolist()) > MOST_BYTES:
            raise ValueError("too large for a spectrum")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _has_elements(path):
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it contains Python objects, not numbers")
    return len(shape) > 0 and 0 not in shape


def _as_columns(arrays):
    """Convert arrays by name to a header and columns."""
    arrays = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
    if not arrays:
        raise ValueError("it has no non-empty array")
    if len(arrays) == 1:
        ((_, array),) = arrays.items()
        if array.dtype.names:
            arrays = {name: array[name] for name in array.dtype.names}
        else:
            _check_numeric("the array", array, 2)
            return None, pd.DataFrame(array)
    for name, array in arrays.items():
        _check_numeric(f"the array {name}", array, 1)
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1:
        raise ValueError(f"its arrays have lengths {listed(sorted(lengths))}; one number per channel is needed")
    return list(arrays), pd.DataFrame({i: array for i, array in enumerate(arrays.values())})


def _check_numeric(what, array, dimensions):
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{what} has dtype {array.dtype}, which is not real numbers")
    if array.ndim != dimensions or array.size == 0:
        raise ValueError(f"{what} has shape {array.shape}, but {'(n, m)' if dimensions == 2 else '(n,)'} is expected")


def _from_text(path, content, least):
    text, encoding = _decoded(path, content)
    lines = text.splitlines()
    first_at, first = next(((i, cut) for i, line in enumerate(lines) if (cut := line.split("#")[0].strip())), (0, ""))
    between = next((mark for mark in ",;\t" if mark in first), r"\s+")
    # One number is enough, since a first row with a gap or a typing error must not be mistaken for a header.
    numbers = any(_is_number(cell) for cell in re.split(between, first))
    options = {"sep": between, "header": None if numbers else 0, "encoding": encoding}
    try:
        try:
            frame = _read_csv(content, **options)
        except pd.errors.ParserWarning:
            # Rows have more cells than the header; the additional cells may be removed if they are blank.
            content = re.sub(rb"[,;\t ]+(?=\r?\n|\r|$)", b"", content)
            frame = _read_csv(content, **options)
        empty = frame.isna().to_numpy()
        if empty.any():
            # A truncated row also gives NaN, so look at the text.
            empty = _read_csv(content, **options | {"dtype": str, "na_values": []}).isin(NOT_A_NUMBER).to_numpy()
    except (pd.errors.ParserWarning, ValueError, OverflowError) as error:
        raise InputError(
            f"{path} is not a table of numbers separated by commas, semicolons, tabs or spaces "
            f"({one_line(error, 120)}); correct the file"
        ) from None
    names = _commented(lines[:first_at], between, frame.shape[1]) if numbers else [str(name) for name in frame.columns]
    return _checked(Table(path.name, names, frame, empty), least)


def _read_csv(content, **options):
    with warnings.catch_warnings():
        # By default pandas drops the additional cells of a row that is longer than the header.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        common = {"comment": "#", "skipinitialspace": True, "index_col": False, "keep_default_na": False}
        return pd.read_csv(io.BytesIO(content), **common | {"na_values": NOT_A_NUMBER} | options)


def _decoded(path, content):
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path.name} is text in UTF-16; save it as UTF-8 (CSV UTF-8 in Excel)")
    found = _CONTROL.search(content)
    if found:
        line = content[: found.start()].count(b"\n") + 1
        raise InputError(
            f"{path.name} has a control character (byte 0x{found[0][0]:02x}) in line {line}, so it is damaged or not "
            f"text; {EXPECTED}"
        )
    try:
        return content.decode("utf-8-sig"), "utf-8-sig"
    except UnicodeDecodeError:
        # An old encoding, for example of a degree sign, only matters in a header or a comment, not in numbers.
        return content.decode("latin-1"), "latin-1"


def _commented(comments, between, n_columns):
    """Header in the last comment line before the numbers, as written by numpy.savetxt; None if it is not a header."""
    last = next((line.strip().lstrip("#").strip() for line in reversed(comments) if line.strip()), "")
    for separator in (between, ",", ";", r"\t", r"\s{2,}|\t", r"\s+"):
        names = [name.strip() for name in re.split(separator, last)]
        if len(names) == n_columns and any(Heading.of(name).kind in ("frequency", "redshift") for name in names):
            return names
    return None


def _checked(table, least):
    """Raise InputError if a table has no rows, too few columns, or looks transposed."""
    rows, columns = table.frame.shape
    if rows == 0:
        raise InputError(f"{table.name} has no rows; {EXPECTED}")
    if columns < least:
        raise InputError(f"{table.name} has one column, but frequency and temperature are needed; {EXPECTED}")
    if rows <= 8 and columns >= 10:
        first = pd.to_numeric(table.frame.iloc[0], errors="coerce").to_numpy(dtype=float)
        if (np.diff(first) > 0).all() or (np.diff(first) < 0).all():
            raise InputError(
                f"{table.name} has {rows} rows of {columns} numbers, so it looks transposed; one row per channel is "
                "expected; to fix this: numpy.savetxt('columns.txt', numpy.loadtxt(FILE).T), and set columns: "
                "{frequency: 0, temperature: 1}"
            )
    return table


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True
