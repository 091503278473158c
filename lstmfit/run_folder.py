"""The output folder of a fit: file names, state, lock and checksums.

A run folder is identified by the record in its ``run.yaml`` (``resolved:``). Files with other names than ours belong to
the user and are never touched.
"""

import contextlib
import os
from pathlib import Path

from lstmfit import config as run_file
from lstmfit.config import RunConfig
from lstmfit.errors import InputError, listed
from lstmfit.files import locked, sha256
from lstmfit.plugins import check_consent
from lstmfit.resolved_run import INPUTS, RUN_FILE, check_inputs, input_files
from lstmfit.sampling.state import (
    CHAIN_FILES,
    PARTS,
    ROOT,
    is_cluster_file,
    is_leftover,
    read_state,
    remove_files,
    remove_parts,
    write_state,
)
from lstmfit.yaml_files import read_yaml

DATA, SUMMARY, EXPLORER = "data.csv", "summary.json", "explore.html"
DRAWN = ("corner.png", "signal.png", "report.html", EXPLORER)
"""Files of a run that commands draw again."""
FILES = (RUN_FILE, DATA, SUMMARY, *DRAWN, "chain_bias.json",
         "chain_getdist.txt", "chain_getdist.paramnames", "chain_getdist.ranges", *CHAIN_FILES)  # fmt: skip
"""Files of a run with one spectrum; several are in `data_files`. There are also the folders `INPUTS`, `PARTS` and
PolyChord's ``clusters``."""
SEALED = (RUN_FILE, *(f"{ROOT}{s}" for s in (".paramnames", ".txt", "_equal_weights.txt", "_dead-birth.txt")),
          f"{ROOT}_phys_live-birth.txt")  # fmt: skip
"""Files of a finished run whose checksums are recorded and verified, besides its data."""


# ---------------------------------------------------------------- data


def data_files(config: RunConfig) -> dict[str, str]:
    """Names of the files with the fitted spectra, by the names of the spectra."""
    return {name: DATA if len(config.data) == 1 else f"data_{name}.csv" for name in config.data}


def write_data(spectra, config: RunConfig, folder: Path) -> None:
    """Write the spectra, given by name, into the folder."""
    for name, file in data_files(config).items():
        spectra[name].write(folder / file)


def read_data(folder, config: RunConfig) -> dict:
    """Read the fitted spectra of a run folder.

    Returns
    -------
    dict of str to Spectrum

    Raises
    ------
    InputError
        A file is missing or damaged.
    """
    from lstmfit.datasets.spectrum import read_written_spectrum

    spectra = {}
    for name, file in data_files(config).items():
        try:
            spectra[name] = read_written_spectrum(Path(folder) / file)
        except (OSError, KeyError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            what = f"has no {file}" if missing else f"has a damaged {file} ({error})"
            raise InputError(f"{folder} {what}, which is the fitted spectrum; repeat the fit with --force") from None
    return spectra


def _names(config: RunConfig) -> tuple[str, ...]:
    """Names of all files of a run."""
    return (*FILES, *(file for file in data_files(config).values() if file not in FILES))


def _names_in(folder) -> tuple[str, ...]:
    """Names of all files of the run in a folder, as far as its run file can be read."""
    with contextlib.suppress(InputError):
        return _names(read_config(folder))
    return FILES


# ---------------------------------------------------------------- state


def state(folder) -> str:
    """State of a folder: ``empty`` (or missing), ``foreign``, ``unfinished`` or ``finished``."""
    folder = Path(folder)
    if not folder.is_dir():
        return "empty"
    if is_run(folder):
        return "finished" if (folder / SUMMARY).is_file() else "unfinished"
    return "foreign" if any(not is_leftover(path, FILES) for path in folder.iterdir()) else "empty"


def is_run(folder) -> bool:
    """Whether a folder has the record written by a fit."""
    path = Path(folder) / RUN_FILE
    if not path.is_file():
        return False
    try:
        content = read_yaml(path)
    except InputError:
        return False
    return isinstance(content, dict) and isinstance(content.get("resolved"), dict)


def read_config(folder) -> RunConfig:
    """Resolved run file of a folder, with absolute paths.

    Raises
    ------
    InputError
        The folder is not a run folder, or its run file is damaged.
    """
    folder = Path(folder)
    if not is_run(folder):
        what = f"its {RUN_FILE} was not written by a fit" if (folder / RUN_FILE).is_file() else f"it has no {RUN_FILE}"
        raise InputError(f"{folder} is not a run folder: {what}; give the output folder of `lstmfit fit`")
    return run_file.load(folder / RUN_FILE)


@contextlib.contextmanager
def locked_folder(folder):
    """Lock the folder against a second run. The lock ends with the process, however it ends.

    Raises
    ------
    InputError
        Another process has the lock, or the folder cannot be created or is not writable.
    """
    target = folder
    made = []
    while not target.exists():
        made.append(target)
        target = target.parent
    stack = contextlib.ExitStack()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = f"another run is active in {folder}; wait for it or choose another folder with -o"
        stack.enter_context(locked(folder, held))
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror}; choose another folder with -o") from None
    try:
        with stack:
            if not os.access(folder, os.W_OK):
                raise InputError(f"cannot write into {folder}: no permission; choose another folder with -o")
            yield
    finally:
        # Invalid input leaves nothing behind, not even an empty folder.
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


# ---------------------------------------------------------------- what may be written and removed


def check_untouched(folder: Path, config: RunConfig, source) -> None:
    """Check that a run would not overwrite files of the user.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder.
    config : RunConfig
        The run file.
    source : path, str or mapping
        Origin of the run file.

    Raises
    ------
    InputError
        An input of the run, or another file of the user, has the name of a file that the run would write.
    """
    ours = is_run(folder)
    inputs = [Path(path) for path in input_files(config).values()]
    if not isinstance(source, dict) and not ours:
        inputs.append(run_file.find_run(source))
    inputs += [Path(name) for name in (config.priors or [])]
    written = {(folder / name).absolute() for name in _names(config)}
    for path in inputs:
        if path.absolute() in written or (path.exists() and path.resolve() in {p.resolve() for p in written}):
            raise InputError(f"the run would overwrite its own input {path}; choose another folder with -o")
    if ours:
        return
    taken = [name for name in (*_names(config), INPUTS, PARTS, "clusters") if os.path.lexists(folder / name)]
    if taken:
        raise InputError(
            f"{folder} is not a run folder, and a run would overwrite {listed(taken, 4)} in it; "
            "choose another folder with -o"
        )


def clear(folder: Path) -> None:
    """Remove the files of a run from its folder; ``run.yaml``, which identifies the folder, is removed last."""
    names = _names_in(folder)
    for name in names[1:]:
        with contextlib.suppress(IsADirectoryError, PermissionError):
            (folder / name).unlink(missing_ok=True)
    for path in list(folder.iterdir()):
        if is_leftover(path, names):
            path.unlink()
    remove_parts(folder)
    remove_files(folder / "clusters", is_cluster_file)
    copies = set()
    with contextlib.suppress(InputError):
        inputs = map(Path, input_files(read_config(folder)).values())
        copies = {path.name for path in inputs if path.parent.name == INPUTS}
    remove_files(folder / INPUTS, lambda path: path.name in copies)
    (folder / RUN_FILE).unlink(missing_ok=True)


def has_progress(folder: Path) -> bool:
    """Whether a folder contains files from which a sampler can resume."""
    state = read_state(folder, ROOT)
    marks = (".resume", ".nautilus.h5", ".blackjax.npz", "_dead-birth.txt")
    folders = [folder, *(folder / PARTS).glob("*")]
    return bool(state.get("n_dead")) or any((f / f"{ROOT}{mark}").is_file() for f in folders for mark in marks)


def check_target(path) -> None:
    """Check that an output file of a command does not replace a file of a run.

    Raises
    ------
    InputError
        `path` is ``run.yaml``, the data, the summary or a chain file of a run folder.
    """
    path = Path(path)
    if path.name not in DRAWN and is_run(path.parent) and path.name in _names_in(path.parent):
        raise InputError(f"{path} belongs to the run in {path.parent}; give another file")


# ---------------------------------------------------------------- reading


def load_problem(folder, trust: bool = False):
    """Build the problem of a run folder from its resolved run file and its data.

    Parameters
    ----------
    folder : path
        The run folder.
    trust : bool
        Import likelihoods and simulators given by dotted path in the run file.

    Returns
    -------
    lstmfit.problem.Problem

    Raises
    ------
    InputError
        The folder is not a run folder, its data are missing, the emulator has changed since the run, or the run file
        names code to import without consent.
    """
    from lstmfit.problem import build

    folder = Path(folder)
    config = read_config(folder)
    check_consent(config, folder, trust)
    config = check_inputs(folder, config)
    problem = build(config, read_data(folder, config))
    expected = (config.resolved or {}).get("signal_checksum")
    if expected is not None and expected != problem.signal.checksum:
        raise InputError(
            f"{folder}: {problem.signal.name} has changed since this run (checksum {problem.signal.checksum[:12]}, "
            f"was {str(expected)[:12]}); restore it, or repeat the fit with --force"
        )
    return problem


def seal(folder: Path) -> None:
    """Record the checksums of a finished run."""
    names = (*SEALED, *data_files(read_config(folder)).values())
    sums = {name: sha256(folder / name) for name in names if (folder / name).is_file()}
    write_state(folder, ROOT, read_state(folder, ROOT) | {"sha256": sums})


def check_seal(folder) -> None:
    """Check that the files of a finished run are those that the fit wrote.

    Raises
    ------
    InputError
        A file is missing or has changed. Run folders of version 0.1 have no checksums and are not checked.
    """
    folder = Path(folder)
    sums = read_state(folder, ROOT).get("sha256", {})
    for name, expected in sums.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder}: {name} is missing from this run; restore it, or repeat the fit with --force")
        if sha256(folder / name) != expected:
            raise InputError(
                f"{folder}: {name} has changed since the fit, so it no longer matches the chain; restore it, or repeat "
                "the fit with --force"
            )
