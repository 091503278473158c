"""Parameter sets: priors of published parametrisations, one ``.yaml`` each, for the ``priors:`` of a run file."""

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
        Name of a shipped set (case-insensitive), or a ``.yaml`` file.

    Returns
    -------
    dict of str to object
        ``params:`` entries by name, not yet validated.

    Raises
    ------
    InputError
        There is no such set, or the file is not YAML or not a mapping of parameters.
    """
    sets = shipped_sets()
    path = sets.get(str(source).lower(), Path(source))
    if not path.is_file():
        hint = did_you_mean(source, sets, "shipped sets are")
        raise InputError(f"priors: {str(source)!r} is neither a shipped parameter set nor a file; {hint}")
    content = read_yaml(path, "parameter set")
    if not isinstance(content, dict) or not content:
        raise InputError(f"priors: {path} is not a mapping of parameters such as `fX: {{prior: {{min: 0, max: 1}}}}`")
    return content
