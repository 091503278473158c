"""Specs of files without names: parameters and their scaling, the grid, the names of the arrays, units.

The specs of the public sets are in ``presets.yaml``; users write their own in the same form.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, StrictBool, ValidationError, model_validator

from lstmfit.errors import InputError, did_you_mean, listed
from lstmfit.files import user_path
from lstmfit.parameters import Parameter, check_name
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
    """Evenly spaced redshifts or frequencies."""

    min: NotNegative
    max: Positive
    n: Count

    @property
    def values(self) -> np.ndarray:
        """(n,) ascending."""
        return np.linspace(self.min, self.max, self.n)


SPLIT = "{split}"
"""Stands for train, val and test in names of arrays."""


class SignalSpec(Block):
    """Description of a file of signals, or of a published emulator, that does not describe itself.

    Parameters
    ----------
    parameters : list of Column
        In the order of theta.
    redshifts : Grid, list of float or str, optional
        Redshift of each channel, or the name of the array that has them. For an emulator, ascending, and not needed
        if it has a grid of its own.
    frequency : Grid, list of float or str, optional
        The same for files of signals whose grid is in frequency.
    frequency_unit : {"Hz", "kHz", "MHz", "GHz"}, optional
        Unit of `frequency`; MHz by default.
    theta, signal : str, optional
        Names of the arrays in a file of signals; ``{split}`` stands for train, val and test.
    signal_unit : {"mK", "K"}, optional
        Unit of the signals; mK by default.
    outputs : dict of str to str
        Names of the arrays with further outputs, on the grid or one number per signal, by the name of the output.
    """

    parameters: Annotated[list[Column], Field(min_length=1)]
    redshifts: Grid | list[NotNegative] | str | None = None
    frequency: Grid | list[Positive] | str | None = None
    frequency_unit: Literal["Hz", "kHz", "MHz", "GHz"] | None = None
    theta: str | None = None
    signal: str | None = None
    signal_unit: Literal["mK", "K"] | None = None
    outputs: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _different_names(self):
        names = [column.name for column in self.parameters]
        if len(set(names)) < len(names):
            raise ValueError(f"parameters {listed(names)}: a name appears twice")
        return self

    @model_validator(mode="after")
    def _consistent(self):
        if self.redshifts is not None and self.frequency is not None:
            raise ValueError("redshifts and frequency are both given; give one of them")
        if self.frequency_unit is not None and self.frequency is None:
            raise ValueError("frequency_unit is given without frequency; give both or none")
        if (self.theta is None) != (self.signal is None):
            raise ValueError(f"{'signal' if self.signal is None else 'theta'} is missing; name both arrays or none")
        arrays = {"theta": self.theta, "signal": self.signal} | self.outputs
        with_split = [key for key, name in arrays.items() if name is not None and SPLIT in name]
        if with_split and len(with_split) < len(arrays):
            raise ValueError(f"only {listed(with_split)} of {listed(arrays)} has {SPLIT}; all names need it, or none")
        for name in self.outputs:
            if check_name(name, "output") in ("parameters", "redshifts", "signal", "theta"):
                raise ValueError(f"outputs: {name} is not a further output; take it out or rename it")
        return self

    @property
    def names(self) -> list[str]:
        """Of the parameters."""
        return [column.name for column in self.parameters]

    @property
    def grid(self) -> np.ndarray | None:
        """Redshifts (n_channels,) if the spec itself has them, else None."""
        if isinstance(self.redshifts, Grid):
            return self.redshifts.values
        return np.array(self.redshifts, dtype=float) if isinstance(self.redshifts, list) else None

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


@cache
def presets() -> dict[str, SignalSpec]:
    """Specs of the public sets, by name."""
    text = resources.files("lstmfit.datasets").joinpath("presets.yaml").read_text(encoding="utf-8")
    content = parse_yaml(text, "presets.yaml")
    assert isinstance(content, dict)
    return {name: SignalSpec.model_validate(spec) for name, spec in content.items()}


def find_spec(source, key: str = "parameters") -> SignalSpec:
    """A spec by the name of a public set, or from a file.

    Parameters
    ----------
    source : str or path
        ``21cmgem`` or ``ares``, in any case; or a file in YAML, see `SignalSpec`.
    key : str
        What it was given as, for messages.

    Raises
    ------
    InputError
        There is no such name or file, or the file has a mistake.
    """
    for name, spec in presets().items():
        if str(source).lower() == name.lower():
            return spec
    path = user_path(source, key)
    if not path.is_file():
        hint = did_you_mean(str(source), [name.lower() for name in presets()])
        raise InputError(f"{key}: no spec {source}: neither a known set nor a file; {hint}")
    content = read_yaml(path, "spec")
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
