"""Simulators of the global 21-cm signal: the truth that emulators are trained on and judged against."""

import functools
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError, did_you_mean, listed, one_line
from lstmfit.parameters import Parameter
from lstmfit.plugins import CONSENT, has_consent, import_dotted
from lstmfit.schema import shown
from lstmfit.simulators.protocol import History, SimulationError, Simulator

__all__ = ["SIMULATORS", "History", "SimulationError", "Simulator", "load", "load_once", "recorded_simulator"]

SIMULATORS = {"echo21": "lstmfit.simulators.echo21:Echo21"}
"""Simulators by name: where the class is. It is imported when it is asked for."""


def load(name: str) -> Simulator:
    """Build a simulator.

    Parameters
    ----------
    name : str
        A name in `SIMULATORS`; the name or path of an emulator, which then stands for the simulator; or
        `package.module:attribute` for your own: a class that follows `Simulator` and is built without arguments, or a
        ready instance.

    Returns
    -------
    Simulator
        Ready to be called with parameters.

    Raises
    ------
    InputError
        The name is unknown, the module or the attribute does not exist, or what was found is not a simulator.
    """
    target = SIMULATORS.get(name, name)
    if is_emulator(target):
        from lstmfit.emulator.emulator import Emulator
        from lstmfit.simulators.emulated import EmulatedSimulator

        return EmulatedSimulator(Emulator.load(target))
    module_name, colon, attribute = target.partition(":")
    if not (colon and module_name and attribute):
        hint = did_you_mean(name, SIMULATORS)
        raise InputError(
            f"unknown simulator {shown(name)}; {hint} (an emulator is given by its name or path, your own simulator as "
            '"package.module:attribute")'
        )
    found = import_dotted(target, "simulator")
    try:
        simulator = found() if isinstance(found, type) else found
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"simulator {name}: {one_line(error)}; install what is missing") from error
    except Exception as error:
        raise InputError(
            f"simulator {name}: building it failed ({type(error).__name__}: {one_line(error)})"
        ) from error
    missing = [what for what in ("redshifts", "parameters", "name", "version") if not hasattr(simulator, what)]
    if missing or not callable(simulator):
        lacks = ", ".join(missing) or "__call__"
        raise InputError(f"simulator {name!r} lacks {lacks}; see lstmfit.simulators.Simulator for what is needed")
    _check_specs(name, simulator)
    return simulator


def is_emulator(name: str) -> bool:
    """Whether a simulator's name is that of an emulator: a shipped one, one of a package, or a file or folder."""
    from lstmfit.emulator.emulator import shipped
    from lstmfit.emulator.formats import is_named
    from lstmfit.emulator_source import is_mapping_text

    if name in SIMULATORS:
        return False
    if name in shipped() or is_named(name) or is_mapping_text(name):
        return True
    return "\0" not in name and Path(name).expanduser().exists()


def _check_specs(name, simulator):
    """Hold what a simulator says of itself to its type, before it is called a thousand times."""
    parameters = simulator.parameters
    try:
        good = bool(parameters) and all(isinstance(p, Parameter) for p in parameters)
    except TypeError:
        good = False
    if not good or len({p.name for p in parameters}) < len(parameters):
        raise InputError(f"simulator {name}: parameters are {shown(parameters)}; give different Parameters")
    try:
        grid = np.asarray(simulator.redshifts, dtype=float)
    except (TypeError, ValueError):
        grid = np.empty(0)
    if grid.ndim != 1 or len(grid) < 2 or not np.isfinite(grid).all() or grid[0] < 0 or (np.diff(grid) <= 0).any():
        raise InputError(f"simulator {name}: redshifts have shape {grid.shape}; give a list that ascends from 0")


def recorded_simulator(emulator, remedy: str) -> str:
    """The simulator that an emulator was trained on, by its own record.

    Parameters
    ----------
    emulator : lstmfit.emulator.emulator.Emulator
        Its record came with its file, perhaps from a stranger: code that it names is not imported without consent.
    remedy : str
        What to do where the record does not say, for the message.

    Raises
    ------
    InputError
        The record does not say; it was distilled from an emulator that is not at hand; or it names a simulator by
        dotted path, and LSTMFIT_TRUST is not set.
    """
    name = emulator.record.get("simulator")
    if not name:
        raise InputError(f"{emulator.name} does not say which simulator it emulates; {remedy}")
    if is_emulator(str(name)):
        return str(name)
    if "teacher" in emulator.record:
        raise InputError(
            f"{emulator.name} was distilled from {name}, which does not ship with lstmfit; {remedy}, or name the file "
            "of that emulator (bias --truth FILE, simulator: FILE)"
        )
    if str(name) not in SIMULATORS and not has_consent():
        raise InputError(
            f"the emulator {emulator.name} names the simulator {name}, which is not one of {listed(SIMULATORS)} and is "
            f"not imported: its file may come from a stranger; if you trust it set {CONSENT}=1, or name the simulator "
            f"yourself (bias --truth {name}, simulator: {name})"
        )
    return str(name)


@functools.cache
def load_once(name: str) -> Simulator:
    """As `load`, but a process keeps what it has built.

    Raises
    ------
    InputError
        As `load`, or a package that the simulator needs is not installed.
    """
    try:
        return load(name)
    except ImportError as error:
        raise InputError(
            f"the simulator {name} is not installed ({error}); type: pip install 'lstmfit[simulate]'"
        ) from error
