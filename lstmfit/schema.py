"""Validated types for user input: blocks of a run file, and numbers within limits.

This module imports nothing of the package except the errors.
"""

import inspect
import math
import numbers
import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from lstmfit.errors import one_line

INT32 = 2**31 - 1
"""Largest integer of Fortran and of C's int; a larger one wraps around silently."""
INT64 = 2**63 - 1
LARGEST = 1e100
"""Upper limit of all numbers, so that products of two are finite."""


class Block(BaseModel):
    """A block of the run file: unknown keys are errors, and values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def shown(value, most: int = 60) -> str:
    """A value as quoted in messages, shortened to `most` characters."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return "an integer of more than 30 digits"
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _integer(value):
    # bool is a subclass of int in Python, but `true` is not a number.
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{shown(value)} is not a whole number")
    return int(value)


def to_number(value) -> float:
    """Convert a value to a finite number. Text such as "1e-3" is accepted, booleans are not.

    Raises
    ------
    ValueError
        It is not a number, or larger than `LARGEST`.
    """
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, str)):
        # A separate error type, so that a mistake in a block is not also reported as this one if both are allowed.
        raise PydanticCustomError("number_type", "{what} is not a number", {"what": shown(value)})
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{shown(value)} is not a number") from None
    if not math.isfinite(number) or abs(number) > LARGEST:
        raise ValueError(f"{shown(value)} is not a finite number below {LARGEST:g}")
    return number


def _between(low, high):
    def check(value):
        if not low <= value <= high:
            raise ValueError(f"{shown(value)} is out of bounds; give a whole number from {low} to {high}")
        return value

    return AfterValidator(check)


Integer = Annotated[int, BeforeValidator(_integer), _between(-INT32, INT32)]
Index = Annotated[int, BeforeValidator(_integer), _between(0, INT32)]
Whole = Annotated[int, BeforeValidator(_integer), _between(0, INT64)]
"""A number of calls or bytes, which is never passed to Fortran."""
Count = Annotated[int, BeforeValidator(_integer), _between(1, INT32)]
Seed = Annotated[int, BeforeValidator(_integer), _between(0, INT32)]
"""Seed of a sampler; a 32-bit integer in Fortran."""
DataSeed = Annotated[int, BeforeValidator(_integer), _between(0, INT64)]
"""Seed of a `numpy.random.Generator`."""
Number = Annotated[float, BeforeValidator(to_number)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]


def first_mistake(error: Exception) -> str:
    """Short description of an error raised while reading input.

    Parameters
    ----------
    error : Exception
        For a pydantic ValidationError, the first mistake is described: where, what was given, what is expected.
    """
    if not isinstance(error, ValidationError):
        return one_line(error) or type(error).__name__
    first = error.errors()[0]
    at, given = ".".join(str(part)[:60] for part in first["loc"]), shown(first["input"])
    if first["type"] == "missing":
        return f"{at} is missing"
    if first["type"] == "extra_forbidden":
        return f"unknown key {at}"
    if first["type"] in ("value_error", "number_type"):
        text = str(first["ctx"]["error"]) if "error" in first.get("ctx", {}) else first["msg"]
        return f"{at}: {text}" if at else text
    text = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    return f"{at} is {given}; {text}" if at else f"{given}: {text}"


class Meaning(NamedTuple):
    """Description of a key of a block.

    Parameters
    ----------
    type : str
        Type of its value.
    text : str
        What it means.
    unit : str
        Its unit; empty without one.
    """

    type: str
    text: str
    unit: str

    @property
    def short(self) -> str:
        """First sentence, as a part of another one."""
        text = re.split(r"[.;] |\.$", self.text)[0]
        text = text if text[1:2].isupper() else f"{text[:1].lower()}{text[1:]}"
        return f"{text}, {self.unit}" if self.unit else text


def meanings(block: type[Block]) -> dict[str, Meaning]:
    """Descriptions of the keys of a block: the section Parameters of its docstring and of those of its bases.

    Parameters
    ----------
    block : type of Block
        The block. Python removes its docstring with the option -OO.

    Returns
    -------
    dict of str to Meaning
        By the names of the fields. The unit is what a description has in square brackets.
    """
    found = {}
    for cls in reversed(block.__mro__):
        _, _, section = inspect.cleandoc(vars(cls).get("__doc__") or "").partition("Parameters\n----------\n")
        section = re.split(r"^\S.*\n-+$", section, maxsplit=1, flags=re.M)[0]
        for names, kind, body in re.findall(r"^(\w[\w, ]*) : (.*)\n((?:[ ]+.*\n?)+)", section, flags=re.M):
            text = " ".join(body.split())
            unit = re.search(r" \[(mK|K|MHz|h)\]", text)
            if unit:
                text = text[: unit.start()] + text[unit.end() :]
            meaning = Meaning(kind.removesuffix(", optional"), text, unit[1] if unit else "")
            found |= dict.fromkeys(names.split(", "), meaning)
    return found
