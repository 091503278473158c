"""What a file that carries no names means: its parameters, their scaling, the grid, the names of its arrays.

The public sets have their specs in ``presets.yaml``; a user writes one of the same form for files of his own.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Annotated

import numpy as np
from pydantic import Field, StrictBool, ValidationError, model_validator

from lstmfit.errors import InputError, did_you_mean, listed
from lstmfit.files import user_path
from lstmfit.parameters import Parameter
from lstmfit.schema import Block, Count, NotNegative, Number, Positive, first_mistake
from lstmfit.yaml_files import parse_yaml, read_yaml


class Column(Block):
    """One parameter: a column of theta."""

    name: str
    log: StrictBool = False
    unit: str = ""
    latex: str = ""
    min: Number | None = None
    max: Number | None = None
    zero: Positive | None = None

    def parameter(self, low: float, high: float) -> Parameter:
        """The parameter with a range, in log10 where it is logarithmic, unless the spec has one.

        Raises
        ------
        InputError
            A range that it cannot have.
        """
        if self.log and max(abs(low), abs(high)) > 99:
            raise InputError(f"{self.name} runs from 10^{low:g} to 10^{high:g}; the log10 of its range is expected")
        low, high = (float(10.0**end if self.log else end) for end in (low, high))
        low, high = low if self.min is None else self.min, high if self.max is None else self.max
        return Parameter(self.name, low, high, self.log, self.unit, self.latex, self.zero)


class Grid(Block):
    """Evenly spaced redshifts."""

    min: NotNegative
    max: Positive
    n: Count

    @property
    def values(self) -> np.ndarray:
        """(n,) ascending."""
        return np.linspace(self.min, self.max, self.n)


class SignalSpec(Block):
    """The meaning of arrays without names.

    Parameters
    ----------
    parameters : list of Column
        In the order of theta.
    redshifts : Grid or list of float, optional
        Of the channels, ascending; a file may have its own.
    theta, signal : str, optional
        Names of the arrays in a file of signals; ``{split}`` stands for train, val and test.
    """

    parameters: Annotated[list[Column], Field(min_length=1)]
    redshifts: Grid | list[NotNegative] | None = None
    theta: str | None = None
    signal: str | None = None

    @model_validator(mode="after")
    def _different_names(self):
        names = [column.name for column in self.parameters]
        if len(set(names)) < len(names):
            raise ValueError(f"parameters {listed(names)}: a name appears twice")
        return self

    @property
    def names(self) -> list[str]:
        """Of the parameters."""
        return [column.name for column in self.parameters]

    @property
    def grid(self) -> np.ndarray | None:
        """Redshifts (n_channels,), None where the file has its own."""
        return self.redshifts.values if isinstance(self.redshifts, Grid) else _array(self.redshifts)

    def check_sizes(self, where, n_params: int, n_channels: int | None = None) -> None:
        """Refuse a network or a file of other sizes.

        Raises
        ------
        InputError
            The numbers of parameters or of channels differ.
        """
        if len(self.parameters) != n_params:
            raise InputError(
                f"{where} takes {n_params} parameters; the spec has {len(self.parameters)}: {listed(self.names)}"
            )
        if n_channels is not None and self.grid is None:
            raise InputError(f"{where} has no redshift grid; add redshifts: {{min: 5, max: 50, n: 451}} to the spec")
        if n_channels is not None and len(self.grid) != n_channels:
            raise InputError(f"{where} has {n_channels} channels; the spec has {len(self.grid)} redshifts")


def _array(values):
    return None if values is None else np.array(values, dtype=float)


@cache
def presets() -> dict[str, SignalSpec]:
    """Specs of the public sets, by name."""
    text = resources.files("lstmfit.datasets").joinpath("presets.yaml").read_text(encoding="utf-8")
    content = parse_yaml(text, "presets.yaml")
    assert isinstance(content, dict)
    return {name: SignalSpec.model_validate(spec) for name, spec in content.items()}


def find_spec(source) -> SignalSpec:
    """A spec by the name of a public set, or from a file.

    Parameters
    ----------
    source : str or path
        ``21cmgem`` or ``ares``, in any case; or a file in YAML, see `SignalSpec`.

    Raises
    ------
    InputError
        No such name or file, or a mistake in it.
    """
    for name, spec in presets().items():
        if str(source).lower() == name.lower():
            return spec
    path = user_path(source, "parameters")
    if not path.is_file():
        hint = did_you_mean(str(source), [name.lower() for name in presets()])
        raise InputError(f"parameters: no spec {source}: neither a known set nor a file; {hint}")
    content = read_yaml(path, "spec of parameters")
    try:
        return SignalSpec.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {first_mistake(error)}") from None


def recognise_spec(where, n_params: int, n_channels: int) -> SignalSpec:
    """The public set with these numbers of parameters and channels.

    Raises
    ------
    InputError
        There is none.
    """
    for spec in presets().values():
        if len(spec.parameters) == n_params and len(spec.grid) == n_channels:
            return spec
    known = listed(f"{name.lower()} {len(s.parameters)} and {len(s.grid)}" for name, s in presets().items())
    raise InputError(
        f"{where} takes {n_params} parameters and gives {n_channels} channels; known are {known}; name yours: "
        "emulator: {file: FILE, parameters: SPEC.yaml}"
    )
