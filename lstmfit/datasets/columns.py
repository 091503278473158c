"""Columns of a spectrum: the keys of `columns:`, the names in a header, and checks of the values."""

import re
from dataclasses import dataclass

import numpy as np

from lstmfit.errors import InputError, did_you_mean, one_line
from lstmfit.schema import shown

UNITS = {"K": 1000.0, "mK": 1.0}
"""Possible temperature units of a file, in mK."""
FREQUENCY_UNITS = {"Hz": 1e-6, "kHz": 1e-3, "MHz": 1.0, "GHz": 1e3}
"""Possible frequency units of a file, in MHz."""
DEFAULT = {"frequency": 0, "temperature": 1}
"""Columns of a table whose header does not name them."""
KEYS = ("frequency", "redshift", "temperature", "weight", "flag", "sigma")
"""Keys of `columns:` whose value is a column: its number, counted from 0, or its name."""

NAMES = {
    "frequency": ("frequency", "frequencies", "freq", "freqs", "nu", "f", "ν"),
    "redshift": ("redshift", "redshifts", "z"),
    "temperature": ("temperature", "temp", "t", "tsky", "tant", "tb", "t21", "t_21", "t_sky", "t_ant", "t_b", "data"),
    "weight": (
        "weight",
        "weights",
        "wt",
        "wts",
        "wgt",
        "wgts",
        "w",
        "nsamples",
        "n_samples",
        "nsample",
        "counts",
        "n_integrations",
        "integrations",
    ),
    "flag": ("flag", "flags", "flagged", "is_flagged", "mask", "masks", "masked", "bad", "rfi"),
    "sigma": ("sigma", "std", "err", "error", "errors", "noise", "uncertainty", "temperature_error"),
}
"""Names by which the columns of a header are recognised, in lower case and without units."""

SKY = ("tsky", "t_sky", "tant", "t_ant")
"""Names that distinguish the measured sky from a residual or a signal in the same table."""

_BRACKETS = re.compile(r"[\[(]\s*([^\])]*?)\s*[\])]")
_ENDING = re.compile(r"(?:\s*/\s*|\s+in\s+|[_\s.])(mK|K|[kMG]?Hz)$")
_UNITS = {unit.lower(): unit for unit in (*FREQUENCY_UNITS, "mK", "K")}


@dataclass(frozen=True)
class Heading:
    """Name of a column in a header, with its meaning.

    Parameters
    ----------
    name : str
        Name in the file.
    kind : str or None
        A key of `NAMES`; None if the name is not recognised.
    unit : str or None
        Unit in the name, such as MHz or K.
    sky : bool
        Whether it is the name of a measured sky temperature, see `SKY`.
    """

    name: str
    kind: str | None
    unit: str | None
    sky: bool = False

    @classmethod
    def of(cls, name: str) -> "Heading":
        """Interpret a name such as ``Frequency [MHz]``, ``a: Tsky (K)``, ``T / mK`` or ``temperature_mK``."""
        text = str(name).strip().strip("\"'")
        bracket = _BRACKETS.search(text)
        unit = bracket[1] if bracket else None
        bare = (text[: bracket.start()] + text[bracket.end() :]).strip() if bracket else text
        if bracket is None and (ending := _ENDING.search(bare)):
            unit, bare = ending[1], bare[: ending.start()].strip()
        bare = re.sub(r"^[a-z]\s*:\s*", "", bare.lower().strip())
        bare = re.sub(r"[\s-]+", "_", bare)
        unit = _UNITS.get(str(unit).lower(), unit)
        kind = next((kind for kind, names in NAMES.items() if bare in names), None)
        if kind is None and unit in FREQUENCY_UNITS and "width" not in bare:
            kind = "frequency"
        return cls(str(name), kind, unit or None, bare in SKY)


def check_columns(columns) -> dict:
    """Check the `columns:` block of a run file.

    Parameters
    ----------
    columns : mapping
        Numbers (counted from 0) or names of the columns ``frequency`` or ``redshift``, ``temperature``, and optionally
        ``weight``, ``flag`` and ``sigma``; and ``frequency_unit``: Hz, kHz, MHz or GHz.

    Raises
    ------
    InputError
        A key is unknown or missing, both axes are given, a column is used twice, or a value is not a column.
    """
    if not hasattr(columns, "items"):
        raise InputError(f"columns is {shown(columns)}; give a mapping, like {{frequency: 0, temperature: 1}}")
    columns = dict(columns)
    for key in columns:
        if key not in (*KEYS, "frequency_unit"):
            raise InputError(f"columns: unknown key {shown(key)}; {did_you_mean(key, (*KEYS, 'frequency_unit'))}")
    for key in KEYS:
        value = columns.get(key)
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if key in columns and not ((whole and value >= 0) or (isinstance(value, str) and value)):
            raise InputError(f"columns: {key} is {shown(value)}; give the number of the column, from 0, or its name")
    if ("frequency" in columns) == ("redshift" in columns):
        raise InputError(f"columns: give either frequency or redshift, not {_text(columns)}")
    if "temperature" not in columns:
        raise InputError(
            f"columns: temperature is missing in {_text(columns)}; give frequency and temperature, and optionally "
            "weight, flag and sigma"
        )
    unit = columns.get("frequency_unit")
    if "frequency_unit" in columns and unit not in FREQUENCY_UNITS:
        raise InputError(f"columns: frequency_unit is {shown(unit)}; give Hz, kHz, MHz or GHz")
    if unit is not None and "redshift" in columns:
        raise InputError("columns: frequency_unit is given for a redshift axis; remove it")
    taken = [columns[key] for key in KEYS if key in columns]
    if len(set(taken)) < len(taken):
        raise InputError(f"columns: {_text(columns)} uses a column twice; give distinct columns")
    return columns


def _text(columns) -> str:
    """Columns in the format of a run file."""
    return one_line("{" + ", ".join(f"{key}: {value}" for key, value in columns.items()) + "}", 120)


def columns_in_header(name: str, headings: list[Heading]) -> dict:
    """Columns of the axis and of the temperature according to a header, and `DEFAULT` where it does not name them.

    Parameters
    ----------
    name : str
        Name of the file, for messages.
    headings : list of Heading
        The header, one entry per column.

    Returns
    -------
    dict
        A ``columns:`` block with column numbers.

    Raises
    ------
    InputError
        Several columns could be the temperature.
    """
    kinds = [heading.kind for heading in headings]
    axis = next((kind for kind in ("frequency", "redshift") if kind in kinds), None)
    temperatures = [i for i, kind in enumerate(kinds) if kind == "temperature"]
    sky = [i for i in temperatures if headings[i].sky]
    temperatures = sky if len(sky) == 1 else temperatures
    if axis is None or not temperatures:
        return DEFAULT
    if len(temperatures) > 1:
        several = one_line(", ".join(f"{i} ({headings[i].name})" for i in temperatures), 160)
        raise InputError(
            f"{name}: columns {several} could all be the temperature; choose one with "
            f"{wanted(axis, kinds.index(axis), temperatures[0])}"
        )
    columns = {axis: kinds.index(axis), "temperature": temperatures[0]}
    unit = headings[columns[axis]].unit
    if axis == "frequency" and unit in FREQUENCY_UNITS and unit != "MHz":
        columns["frequency_unit"] = unit
    return columns


def wanted(axis: str, axis_at: int, temperature_at: int, **more) -> str:
    """Suggested `columns:` for a message: the axis (frequency or redshift), the temperature, and additional keys."""
    return "columns: " + _text({axis: axis_at, "temperature": temperature_at} | more)


def check_headings(name: str, headings: list[Heading], columns: dict, at: dict) -> None:
    """Check that columns given by number agree with their names in the header.

    Parameters
    ----------
    name : str
        Name of the file, for messages.
    headings : list of Heading
        The header, one entry per column.
    columns, at : dict
        The `columns:` block, and the number of each column in it.

    Raises
    ------
    InputError
        The header contradicts a column; the message suggests the correct columns.
    """
    for key in ("frequency", "redshift", "temperature"):
        if key not in columns or isinstance(columns[key], str):
            continue
        heading = headings[at[key]]
        if heading.kind is not None and heading.kind != key:
            found = f"{name}: column {at[key]} is read as the {key}, but its name is {shown(heading.name)}"
            raise InputError(f"{found}; set {_suggested(headings, at)}, or give the column by its name")
        if key == "frequency" and heading.unit in FREQUENCY_UNITS:
            unit = columns.get("frequency_unit", "MHz")
            if heading.unit != unit:
                more = {"frequency_unit": heading.unit}
                keys = wanted("frequency", at[key], at["temperature"], **more)
                raise InputError(
                    f"{name}: the header gives the frequency in {heading.unit}, but it is read in {unit}; set {keys}"
                )


def _suggested(headings, at) -> str:
    """Suggested keys for a header."""
    found = {kind: i for i, heading in reversed(list(enumerate(headings))) if (kind := heading.kind) in KEYS}
    axis = "redshift" if "redshift" in found and "frequency" not in found else "frequency"
    axis_at = found.get(axis, at.get("frequency", at.get("redshift", 0)))
    taken = {axis_at, *(found[kind] for kind in ("weight", "flag") if kind in found)}
    left = [i for i in range(len(headings)) if i not in taken and headings[i].kind in (None, "temperature")]
    # A temperature unit identifies the column as well as a name.
    likely = [i for i in left if headings[i].unit in UNITS]
    temperature_at = found.get("temperature", (likely or left or [axis_at + 1])[0])
    more = {kind: found[kind] for kind in ("weight", "flag") if kind in found}
    unit = headings[axis_at].unit
    if axis == "frequency" and unit in FREQUENCY_UNITS and unit != "MHz":
        more["frequency_unit"] = unit
    text = wanted(axis, axis_at, temperature_at, **more)
    unit = headings[temperature_at].unit if temperature_at < len(headings) else None
    return f"{text} and unit: {unit}" if unit in UNITS else text


def check_axis(name: str, values: np.ndarray, columns: dict, at: dict, n_columns: int, header: bool) -> None:
    """Check that the values of the axis look like frequencies in MHz.

    Parameters
    ----------
    name : str
        Name of the file, for messages.
    values : numpy.ndarray
        (n,) positive values of the frequency column, in the unit of the file.
    columns, at : dict
        As for `check_headings`.
    n_columns : int
        Number of columns in the file.
    header : bool
        Whether the header identifies the column as a frequency.

    Raises
    ------
    InputError
        The values look like another quantity or unit; the message suggests the correct columns.
    """
    if "redshift" in columns or "frequency_unit" in columns:
        return
    low, high, t = values.min(), values.max(), at["temperature"]
    looks = None
    for unit, (least, most) in {"GHz": (1e-4, 2.0), "kHz": (5e3, 2e6), "Hz": (2e6, 1e13)}.items():
        if least <= low and high < most:
            looks = f"frequency in {unit}", wanted("frequency", at["frequency"], t, frequency_unit=unit)
    steps = np.diff(values)
    if n_columns > 2 and len(values) > 3 and values[0] in (0.0, 1.0) and (steps == 1.0).all():
        after = {"frequency": at["frequency"] + 1, "temperature": at["frequency"] + 2}
        looks = "row numbers", f"columns: {_text(after)}"
    elif looks is None and not header and low < 25.0 and high <= 60.0 and (np.all(steps > 0) or np.all(steps < 0)):
        looks = "redshift", wanted("redshift", at["frequency"], t)
    if looks is not None:
        raise InputError(
            f"{name}: column {at['frequency']} is read as the frequency in MHz, but its values from {low:.6g} to "
            f"{high:.6g} look like {looks[0]}; set {looks[1]} under data, or frequency_unit: MHz in columns if correct"
        )


def check_temperature(name: str, values: np.ndarray, headings: list[Heading], columns: dict, at: dict) -> None:
    """Check that the temperature has values other than 0 and 1, which would be weights or flags.

    Parameters
    ----------
    name : str
        Name of the file, for messages.
    values : numpy.ndarray
        (n,) in the unit of the file.
    headings, columns, at
        As for `check_headings`.

    Raises
    ------
    InputError
        All values are 0 or 1; the message suggests the correct columns.
    """
    if isinstance(columns["temperature"], str) or len(values) < 5:
        return
    # All zeros is valid: a noiseless spectrum without a signal.
    if np.isin(values, (0.0, 1.0)).all() and values.any():
        column = at["temperature"]
        unnamed = [h if i != column else Heading(h.name, "weight", None) for i, h in enumerate(headings)]
        if len(headings) > 2:
            todo = f"set {_suggested(unnamed, at)}"
        else:
            todo = "the file has no other column; give another file"
        raise InputError(
            f"{name}: column {column} is read as the temperature, but its values are all 0 or 1, which looks like "
            f"weights; {todo}"
        )
