"""Simulators of the global 21-cm signal: the truth that emulators are trained on and judged against."""

import functools
import importlib

from lstmfit.errors import InputError, did_you_mean
from lstmfit.simulators.protocol import History, SimulationError, Simulator

__all__ = ["SIMULATORS", "History", "SimulationError", "Simulator", "load", "load_once"]

SIMULATORS = {"echo21": "lstmfit.simulators.echo21:Echo21"}
"""Simulators by name: where the class is. It is imported when it is asked for."""


def load(name: str) -> Simulator:
    """Build a simulator.

    Parameters
    ----------
    name : str
        A name in `SIMULATORS`, or `package.module:attribute` for your own: a class that follows `Simulator`
        and is built without arguments, or a ready instance.

    Returns
    -------
    Simulator
        Ready to be called with parameters.

    Raises
    ------
    InputError
        The name is unknown, the module or the attribute does not exist, or what is there is no simulator.
    """
    target = SIMULATORS.get(name, name)
    module_name, colon, attribute = target.partition(":")
    if not (colon and module_name and attribute):
        hint = did_you_mean(name, SIMULATORS)
        raise InputError(f'unknown simulator {name!r}; {hint} (your own is written "package.module:attribute")')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"simulator {name!r}: no module {error.name!r}; install it or add its folder to PYTHONPATH"
        ) from error
    try:
        found = getattr(module, attribute)
    except AttributeError as error:
        raise InputError(f"simulator {name!r}: module {module_name} has no attribute {attribute!r}") from error
    simulator = found() if isinstance(found, type) else found
    missing = [what for what in ("redshifts", "parameters", "name", "version") if not hasattr(simulator, what)]
    if missing or not callable(simulator):
        lacks = ", ".join(missing) or "__call__"
        raise InputError(f"simulator {name!r} lacks {lacks}; see lstmfit.simulators.Simulator for what is needed")
    return simulator


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
