"""User code given by a dotted path: importing it, and the consent that this requires."""

import importlib
import os

from lstmfit.errors import InputError, listed

CONSENT = "LSTMFIT_TRUST"
"""Environment variable that gives consent, like the option --trust."""


def has_consent() -> bool:
    """Whether the environment variable gives consent to import code named in files."""
    return os.environ.get(CONSENT, "") in ("1", "true", "yes")


def is_dotted(name: str) -> bool:
    """Whether a name is that of code to import, not of something registered, a path, or a mapping in YAML."""
    return ("." in name or ":" in name) and "/" not in name and not name.startswith(("21cmemu:", "{"))


def import_dotted(name: str, what: str):
    """Import an object by its dotted path.

    Parameters
    ----------
    name : str
        ``package.module.Class`` or ``package.module:Class``.
    what : str
        Kind of object for messages: "likelihood", "simulator".

    Raises
    ------
    InputError
        There is no such module, or no such object in it.
    """
    module_name, _, attribute = name.partition(":") if ":" in name else name.rpartition(".")
    if not module_name or not attribute:
        raise InputError(f'{what} {name} is not a dotted path; for your own {what}, give "package.module:Class"')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"{what} {name}: importing {module_name} failed ({error}); install that module") from error
        raise InputError(
            f"{what} {name}: there is no module {error.name!r}; install it or add its folder to PYTHONPATH"
        ) from None
    except Exception as error:
        raise InputError(
            f"{what} {name}: importing {module_name} failed with {type(error).__name__} ({error}); "
            f'to see where: python -c "import {module_name}"'
        ) from error
    found = getattr(module, attribute, None)
    if found is None:
        raise InputError(f"{what} {name}: module {module_name} has no {attribute!r}; check the name of the class")
    return found


def check_consent(config, where, trust: bool) -> None:
    """Check that the user has consented to import code named in a run folder, because it may come from anyone.

    Parameters
    ----------
    config : lstmfit.config.RunConfig
        Run file of the folder.
    where : path
        The folder, for the message.
    trust : bool
        The user's consent; it can also be given by the environment variable LSTMFIT_TRUST=1.

    Raises
    ------
    InputError
        The run file names code to import, and there is no consent.
    """
    classes = (options.get("class", name) for name, options in config.others.items())
    named = [f"likelihood {name}" for name in classes if is_dotted(name)]
    if config.simulator is not None and is_dotted(config.simulator):
        named.append(f"simulator {config.simulator}")
    if named and not (trust or has_consent()):
        raise InputError(
            f"{where} names code to import and run: {listed(named, 4)}; if you trust the origin of this folder, "
            f"repeat the command with --trust (or set {CONSENT}=1)"
        )
