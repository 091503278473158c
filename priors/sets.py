"""Parameter sets: priors of a published parametrisation, one ``.yaml`` each, for a run file's ``priors:``."""

from importlib import resources
from pathlib import Path

from lstmfit.errors import InputError, did_you_mean
from lstmfit.yaml_files import read_yaml


def shipped_sets() -> dict[str, Path]:
    """Parameter sets that come with the package, by name."""
    folder = resources.files("lstmfit.priors")
    files = sorted(p.name for p in folder.iterdir() if p.name.endswith(".yaml"))
    return {name.removesuffix(".yaml"): Path(str(folder.joinpath(name))) for name in files}


def load_set(source) -> dict[str, dict]:
    """Read a parameter set.

    Parameters
    ----------
    source : str or path
        The name of one that ships, in small or capital letters, or a ``.yaml`` file.

    Returns
    -------
    dict of str to object
        The ``params:`` entries by name, not validated yet.

    Raises
    ------
    InputError
        No such set, not YAML, or not a mapping of parameters.
    """
    sets = shipped_sets()
    path = sets.get(str(source).lower(), Path(source))
    if not path.is_file():
        hint = did_you_mean(source, sets, "shipped are")
        raise InputError(f"priors: no parameter set {str(source)!r}, neither shipped nor a file; {hint}")
    content = read_yaml(path, "parameter set")
    if not isinstance(content, dict) or not content:
        raise InputError(f"priors: {path} is not a mapping of parameters like `fX: {{prior: {{min: 0, max: 1}}}}`")
    return content
