"""Simulators of the global 21-cm signal, used to train and to validate emulators."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from lstmfit.errors import InputError, did_you_mean, listed, one_line
from lstmfit.parameters import Parameter
from lstmfit.plugins import CONSENT, has_consent, import_dotted
from lstmfit.schema import shown
from lstmfit.simulators.protocol import History, SimulationError, Simulator

__all__ = ["SIMULATORS", "History", "SimulationError", "Simulator", "load", "load_once", "recorded_simulator"]

SIMULATORS = {"echo21": "lstmfit.simulators.echo21:Echo21"}
"""Simulators by name, with the path of the class, which is imported when needed."""


def load(name: str) -> Simulator:
    """Load a simulator.

    Parameters
    ----------
    name : str
        A name in `SIMULATORS`; the name or path of an emulator, which is then used as the simulator; or
        `package.module:attribute` for your own simulator: a class that follows `Simulator` and takes no arguments, or
        an instance of it.

    Returns
    -------
    Simulator

    Raises
    ------
    InputError
        The name is unknown, the module or the attribute does not exist, or the object is not a simulator.
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
            f"unknown simulator {shown(name)}; {hint} (to use an emulator, give its name or path; for your own "
            'simulator, give "package.module:attribute")'
        )
    found = import_dotted(target, "simulator")
    try:
        simulator = found() if isinstance(found, type) else found
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"simulator {name}: {one_line(error)}; install the missing package") from error
    except Exception as error:
        raise InputError(
            f"simulator {name}: creating it failed ({type(error).__name__}: {one_line(error)}); correct its code"
        ) from error
    missing = [what for what in ("redshifts", "parameters", "name", "version") if not hasattr(simulator, what)]
    if missing or not callable(simulator):
        lacks = ", ".join(missing) or "__call__"
        raise InputError(f"simulator {name!r} lacks {lacks}; see lstmfit.simulators.Simulator for the interface")
    _check_specs(name, simulator)
    return simulator


def is_emulator(name: str) -> bool:
    """Whether the name of a simulator is that of an emulator: shipped, from another package, or a file or folder."""
    from lstmfit.emulator.emulator import shipped
    from lstmfit.emulator.formats import is_named
    from lstmfit.emulator_source import is_mapping_text

    if name in SIMULATORS:
        return False
    if name in shipped() or is_named(name) or is_mapping_text(name):
        return True
    return "\0" not in name and Path(name).expanduser().exists()


def _check_specs(name: str, simulator: Any) -> None:
    """Check the attributes of a simulator before it is called thousands of times."""
    parameters = simulator.parameters
    try:
        good = bool(parameters) and all(isinstance(p, Parameter) for p in parameters)
    except TypeError:
        good = False
    if not good or len({p.name for p in parameters}) < len(parameters):
        raise InputError(
            f"simulator {name}: parameters is {shown(parameters)}; give a sequence of Parameter with distinct names"
        )
    try:
        grid = np.asarray(simulator.redshifts, dtype=float)
    except (TypeError, ValueError):
        grid = np.empty(0)
    if grid.ndim != 1 or len(grid) < 2 or not np.isfinite(grid).all() or grid[0] < 0 or (np.diff(grid) <= 0).any():
        raise InputError(
            f"simulator {name}: redshifts with shape {grid.shape} are not a list of at least 2 ascending, non-negative "
            "numbers; correct this attribute"
        )


def recorded_simulator(emulator: Any, remedy: str) -> str:
    """Name of the simulator that an emulator was trained on, according to its record.

    Parameters
    ----------
    emulator : lstmfit.emulator.emulator.Emulator
        The emulator. Its file may come from an untrusted source, so code that its record names is not imported without
        consent.
    remedy : str
        How to fix a record without a simulator, for messages.

    Raises
    ------
    InputError
        The record does not name the simulator; the emulator was distilled from an emulator that is not available; or
        the record names a simulator by its dotted path, and LSTMFIT_TRUST is not set.
    """
    name = emulator.record.get("simulator")
    if not name:
        raise InputError(f"{emulator.name} does not say which simulator it emulates; {remedy}")
    if is_emulator(str(name)):
        return str(name)
    if "teacher" in emulator.record:
        raise InputError(
            f"{emulator.name} was distilled from {name}, which is not shipped with lstmfit; {remedy}, or give the file "
            "of that emulator (bias --truth FILE, simulator: FILE)"
        )
    if str(name) not in SIMULATORS and not has_consent():
        raise InputError(
            f"the emulator {emulator.name} names the simulator {name}, which is not imported because the file may come "
            f"from an untrusted source (only {listed(SIMULATORS)} is); if you trust it, set {CONSENT}=1, or name the "
            f"simulator yourself (bias --truth {name}, simulator: {name})"
        )
    return str(name)


@functools.cache
def load_once(name: str) -> Simulator:
    """As `load`, but each process loads a simulator only once.

    Raises
    ------
    InputError
        As `load`; also if a package that the simulator needs is not installed.
    """
    try:
        return load(name)
    except ImportError as error:
        raise InputError(
            f"the simulator {name} is not installed ({error}); to fix this: pip install 'lstmfit[simulate]'"
        ) from error
