"""Files that accompany a chain: the state of the run, its request, and the names of its columns."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, StrictBool

from lstmfit.errors import InputError
from lstmfit.files import write_text
from lstmfit.schema import Block, Count, NotNegative, Whole, first_mistake

ROOT, PARTS = "chain", "parts"
"""Prefix of the chain files, and the folder of the serial runs that are merged into them."""
KEPT = ".resume.kept"
"""Suffix of a hard link to the last resume file that was complete."""
STALE_SUFFIXES = (
    ".resume",
    KEPT,
    ".nautilus.h5",
    ".blackjax.npz",
    ".state.json",
    ".stats",
    ".txt",
    "_equal_weights.txt",
    "_dead.txt",
    "_dead-birth.txt",
    "_phys_live.txt",
    "_phys_live-birth.txt",
    "_prior.txt",
)
CHAIN_SUFFIXES = (
    *STALE_SUFFIXES,
    f"{KEPT}.new",
    ".resume_temp",
    ".stats_temp",
    ".paramnames",
    ".properties.ini",
    ".ranges",
    ".prior_info",
    ".polychord.log",
    ".txt_temp",
    "_equal_weights.txt_temp",
    "_phys_live.txt_temp",
)
"""Suffixes of all files that a sampler writes under a root."""
CHAIN_FILES = tuple(f"{ROOT}{suffix}" for suffix in CHAIN_SUFFIXES)

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.\d+\.part$")
_CLUSTER_FILE = re.compile(rf"{ROOT}(_[a-z_-]+)?_\d+\.txt(_temp)?$")


def state_file(folder, root) -> Path:
    """File with the request and the state of a run."""
    return Path(folder) / f"{root}.state.json"


class State(Block):
    """Validated content of a state file, so that a damaged file is not taken for a run."""

    model_config = ConfigDict(extra="allow", frozen=True)

    names: list[str] = Field([])
    derived_names: list[str] = Field([])
    settings: dict[str, Any] = Field({})
    shares: list[Count] | None = None
    n_like: Whole = 0
    n_dead: Whole = 0
    n_nan: Whole = 0
    wall_s: NotNegative = 0.0
    logZ: float | None = None
    logZ_err: float | None = None
    prior_fraction: NotNegative | None = None
    mean_inflation: dict[str, NotNegative] | None = None
    finished: StrictBool = False
    ranks: Count = 1
    version: str = ""
    library: str = ""
    sha256: dict[str, str] = Field({})


def read_state(folder, root) -> dict:
    """Content of `state_file`; empty if there is none.

    Raises
    ------
    InputError
        The file is damaged.
    """
    path = state_file(folder, root)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        State.model_validate(content)
    except FileNotFoundError:
        return {}
    # RecursionError: brackets nested too deeply.
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({first_mistake(error)}); start over with --force") from error
    return content


def write_state(folder, root, state: dict) -> None:
    """Replace `state_file`."""
    write_text(state_file(folder, root), json.dumps(state, indent=1) + "\n")


def prepare_folder(problem, folder, root, settings, *, resume: bool, made: str, fresh: dict) -> dict:
    """Prepare a folder for a sampler that runs in one process, and return the state to start from.

    Parameters
    ----------
    problem : lstmfit.problem.Problem
        The problem to sample.
    folder : pathlib.Path
        Output folder; created if missing.
    root : str
        Prefix of the file names.
    settings : Block
        Resolved settings of the sampler.
    resume : bool
        Resume the run in the folder, if there is one.
    made : str
        Name of a file that every finished run has; without it the run counts as unfinished, whatever its state says.
    fresh : dict
        State of a run that has not started.

    Returns
    -------
    dict
        The state.

    Raises
    ------
    InputError
        The folder is not writable, or contains a run with other parameters or settings.
    """
    request = make_request(problem, settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        state = read_state(folder, root) if resume else {}
        if state:
            check_same_request(state, request, folder / root)
            if not (folder / made).is_file():
                state["finished"] = False
        else:
            remove_stale(folder, root)
            state = request | fresh
        write_paramnames(folder, root, problem)
        write_state(folder, root, state)
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); give another output folder") from error
    return state


def write_paramnames(folder, root, problem) -> None:
    """Write ``ROOT.paramnames``: name and label of each column; derived parameters are marked by an asterisk."""
    names = (*problem.names, *(f"{name}*" for name in problem.derived_names))
    lines = "".join(f"{name}\t{label}\n" for name, label in zip(names, problem.latex))
    write_text(Path(folder) / f"{root}.paramnames", lines)


def remove_stale(folder, root) -> None:
    """Remove an earlier chain, so that it cannot be mistaken for that of the new run."""
    for suffix in STALE_SUFFIXES:
        (Path(folder) / f"{root}{suffix}").unlink(missing_ok=True)


def is_leftover(path: Path, names) -> bool:
    """Whether a file is the leftover of an interrupted write of one of `names` (`lstmfit.files.replacing`)."""
    found = _LEFTOVER.match(path.name)
    return found is not None and found["name"] in names


def is_cluster_file(path: Path) -> bool:
    """Whether a file is one that PolyChord writes to its folder ``clusters``."""
    return _CLUSTER_FILE.match(path.name) is not None


def remove_files(folder: Path, ours) -> None:
    """Remove the files of a folder for which `ours(path)` is true, then the folder if it is empty.

    Files that the user has put into the folder are kept. A symbolic link is left alone.
    """
    if not folder.is_dir() or folder.is_symlink():
        return
    for path in list(folder.iterdir()):
        if path.is_file() and ours(path):
            path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def remove_parts(folder) -> None:
    """Remove the files of a fit's serial runs from its folder ``parts``.

    Raises
    ------
    InputError
        ``parts`` is a symbolic link or a file, so it was not created by a run.
    """
    parts = Path(folder) / PARTS
    check_parts(folder)
    if not parts.is_dir():
        return
    for part in list(parts.iterdir()):
        if part.name.isdigit() and not part.is_symlink():
            remove_files(part / "clusters", is_cluster_file)
            remove_files(
                part,
                lambda path: path.name in (*CHAIN_FILES, "log.txt") or is_leftover(path, CHAIN_FILES),
            )
    with contextlib.suppress(OSError):
        parts.rmdir()


def check_parts(folder) -> None:
    """Check that ``parts`` is a real folder, if it exists (InputError)."""
    parts = Path(folder) / PARTS
    if parts.is_symlink() or (parts.exists() and not parts.is_dir()):
        what = "a symbolic link" if parts.is_symlink() else "a file"
        raise InputError(f"{parts} is {what}, not a folder created by a run; move it elsewhere")


def make_request(problem, settings=None) -> dict:
    """Names and settings that must not change if a run is to be resumed; no settings if nothing is sampled."""
    return {
        "names": list(problem.names),
        "derived_names": list(problem.derived_names),
        "settings": {} if settings is None else settings.model_dump(mode="json"),
    }


def check_same_request(old: dict, new: dict, where) -> None:
    """Check that a run to be resumed has the same parameters and settings.

    Raises
    ------
    InputError
        Names or settings differ.
    """
    remedy = "resume with the original run file, or start over with --force"
    for key, what in (("names", "parameters"), ("derived_names", "derived parameters")):
        if old[key] != new[key]:
            raise InputError(
                f"{where} was started with {len(old[key])} {what} ({', '.join(old[key])}), "
                f"but now there are {len(new[key])} ({', '.join(new[key])}); {remedy}"
            )
    # A setting that an older version did not have is no reason to refuse its run.
    before, now = old["settings"], new["settings"]
    differing = [key for key in now if key in before and before[key] != now[key]]
    if differing:
        what = ", ".join(f"{key} {before[key]} (now {now[key]})" for key in differing)
        raise InputError(f"{where} was started with {what}; {remedy}")
