"""The output folder of a fit: file names, state, lock, resolved run file and checksums.

A run folder is identified by the record in its ``run.yaml`` (``resolved:``). Files with other names than ours belong to
the user and are never touched.
"""

import contextlib
import os
import shutil
from pathlib import Path

from pydantic import ConfigDict, Field

from lstmfit import config as run_file
from lstmfit.config import RunConfig
from lstmfit.datasets.columns import DEFAULT
from lstmfit.emulator_source import files_of, is_emulator_path
from lstmfit.errors import InputError, listed
from lstmfit.files import locked, sha256
from lstmfit.likelihoods.base import with_defaults
from lstmfit.mistakes import validate_block
from lstmfit.plugins import check_consent
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
from lstmfit.schema import Block, Number
from lstmfit.yaml_files import read_yaml

RUN_FILE, DATA, SUMMARY, INPUTS = "run.yaml", "data.csv", "summary.json", "inputs"
FILES = (RUN_FILE, DATA, SUMMARY, "corner.png", "signal.png", "report.html", "chain_bias.json",
         "chain_getdist.txt", "chain_getdist.paramnames", "chain_getdist.ranges", *CHAIN_FILES)  # fmt: skip
"""Files of a run with one spectrum; several are in `data_files`. There are also the folders `INPUTS`, `PARTS` and
PolyChord's ``clusters``."""
SEALED = (RUN_FILE, *(f"{ROOT}{s}" for s in (".paramnames", ".txt", "_equal_weights.txt", "_dead-birth.txt")),
          f"{ROOT}_phys_live-birth.txt")  # fmt: skip
"""Files of a finished run whose checksums are recorded and verified, besides its data."""
MOST_COPIED = 16_000_000
"""Inputs up to this size in bytes are copied into the folder; of larger ones only the checksum is recorded."""
MOCK_FILES = (("mock", "noise", "file"), *(("mock", "foreground", key) for key in ("file", "mean")))
SPECTRUM_FILES = (("noise", "file"), *(("foreground", key) for key in ("file", "mean", "covariance")))
"""Keys of a data block and of the likelihood of a spectrum that name a file, which is copied into the folder."""
SPEC = ("emulator", "parameters")
"""Key of the file that names an emulator's parameters."""


class InputRecord(Block):
    """An input file of a run.

    Parameters
    ----------
    path : str
        Path at the start of the run.
    sha256 : str
        Checksum of its content.
    """

    path: str
    sha256: str


class Record(Block):
    """Signal, versions and inputs of a run: the ``resolved:`` block of its run file."""

    model_config = ConfigDict(extra="allow", frozen=True)

    signal: str
    signal_checksum: str
    versions: dict[str, str] = Field({})
    created: str = ""
    truth: dict[str, Number] = Field({})
    inputs: dict[str, InputRecord] = Field({})


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


def record(config: RunConfig) -> Record:
    """Record of a resolved run file."""
    return validate_block(Record, config.resolved or {}, "run.yaml: resolved")


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
    inputs = [Path(path) for path in _files(config).values()]
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
        copies = {Path(path).name for path in _files(read_config(folder)).values() if Path(path).parent.name == INPUTS}
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
    drawn = ("report.html", "corner.png", "signal.png")
    if path.name not in drawn and is_run(path.parent) and path.name in _names_in(path.parent):
        raise InputError(f"{path} belongs to the run in {path.parent}; give another file")


# ---------------------------------------------------------------- inputs


def _get(content, keys):
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, str) else None


def _set(content, keys, value):
    """Copy of nested mappings with one value replaced."""
    if not keys:
        return value
    return content | {keys[0]: _set(content[keys[0]], keys[1:], value)}


def _content(config: RunConfig) -> dict:
    return config.model_dump(by_alias=True, exclude_none=True)


def _copied(config: RunConfig) -> list[tuple[str, ...]]:
    """Keys of the run file that may name a file of noise or foreground, which is copied into the folder."""
    of_mocks = [(*place, *keys) for place in config.data_places.values() for keys in MOCK_FILES]
    return of_mocks + [("likelihood", name, *keys) for name in config.spectrum_blocks for keys in SPECTRUM_FILES]


def _slots(config: RunConfig) -> list[tuple[str, ...]]:
    """Keys of the run file that may name a file, apart from the emulator."""
    return [*((*place, "file") for place in config.data_places.values()), *_copied(config)]


def _files(config: RunConfig) -> dict[tuple[str, ...], str]:
    """Files named in a run file, except a shipped emulator, by their keys."""
    content = _content(config)
    found = {keys: path for keys in _slots(config) if (path := _get(content, keys)) is not None}
    emulator = config.emulator
    if emulator is not None and is_emulator_path(emulator.file):
        found[("emulator",) if emulator.parameters is None else ("emulator", "file")] = emulator.file
    if emulator is not None and emulator.parameters is not None and Path(emulator.parameters).is_file():
        found[SPEC] = emulator.parameters
    return found


def _place(keys) -> str:
    """Dotted place in the run file; of an emulator the same in both of its forms."""
    return "emulator" if keys == ("emulator", "file") else ".".join(keys)


def record_inputs(config: RunConfig) -> dict[str, dict]:
    """Path and checksum of every input file of a run, by its dotted key in the run file."""
    return {
        _place(keys): {"path": str(Path(path).absolute()), "sha256": sha256(*files_of(path))}
        for keys, path in _files(config).items()
        # A run resumes from its own data.csv, even if the original file no longer exists.
        if Path(path).exists()
    }


def write_config(config: RunConfig, folder: Path) -> None:
    """Write the resolved run file, and copies of small files that it names.

    Paths are relative to the folder if they share a parent folder, so that a project can be moved.
    """
    content, copied = _content(config), {}
    for keys, path in _files(config).items():
        source = Path(path).absolute()
        if not source.exists():
            continue
        name = os.path.relpath(source, folder.absolute())
        if (keys == SPEC or keys in _copied(config)) and source.stat().st_size <= MOST_COPIED:
            copy = folder / INPUTS / _free_name(source, copied)
            if source != copy.absolute():
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(source, copy)
            name = f"{INPUTS}/{copy.name}"
        elif os.path.commonpath([source, folder.absolute()]) == os.sep:
            name = str(source)
        content = _set(content, keys, name)
    run_file.dump(run_file.validate(content, "resolved run"), folder / RUN_FILE)


def _free_name(source: Path, copied: dict[str, Path]) -> str:
    """Name of the copy of a file; files of the same name from different folders get different ones."""
    name, n = source.name, 1
    while copied.setdefault(name, source) != source:
        n += 1
        name = f"{source.stem}_{n}{source.suffix}"
    return name


def check_inputs(folder: Path, config: RunConfig) -> RunConfig:
    """Verify the checksums of the inputs of a run folder, and locate its emulator.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder.
    config : RunConfig
        Its run file, see `read_config`.

    Returns
    -------
    RunConfig
        The run file with the current path of the emulator.

    Raises
    ------
    InputError
        A noise or foreground file or the spec of an emulator's parameters is missing or has changed, or the emulator
        is missing.
    """
    inputs = record(config).inputs
    for keys in (*_copied(config), SPEC):
        what = "spec of parameters" if keys == SPEC else f"{keys[-2]} file"
        known, path = inputs.get(".".join(keys)), _get(_content(config), keys)
        # The files of a mock are not needed, because it has already been drawn.
        if known is None or path is None or keys[0] == "data":
            continue
        if not Path(path).is_file():
            raise InputError(f"{folder}: the {what} {path} of this run is missing; restore it")
        if sha256(path) != known.sha256:
            raise InputError(
                f"{folder}: the {what} {path} has changed since the fit; restore it, or repeat the fit with --force"
            )
    known = inputs.get("emulator")
    if known is None or is_emulator_path(config.emulator.file):
        return config
    if is_emulator_path(known.path):
        return config.model_copy(update={"emulator": config.emulator.model_copy(update={"file": known.path})})
    raise InputError(
        f"{folder}: the emulator file {config.emulator.file} of this run is missing; restore it, or give its new path "
        f"in the run file and run: lstmfit fit RUN -o {folder} --resume"
    )


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Differences between the run file of a folder and that of a resumed run; files are compared by content.

    Parameters
    ----------
    old, new : RunConfig
        Resolved run files.

    Returns
    -------
    list of str
        Blocks of the run file that differ, and files whose content differs.
    """
    a, b = (_comparable(config) for config in (old, new))
    changed = []
    then, now = record(old).inputs, record(new).inputs
    for keys in _slots(new):
        place = ".".join(keys)
        if place in then and place in now:
            if then[place].sha256 != now[place].sha256:
                changed.append(f"content of {place} ({now[place].path})")
            if keys in _slots(old):
                a, b = _set(a, keys, ""), _set(b, keys, "")
    if record(old).signal_checksum == record(new).signal_checksum and old.emulator and new.emulator:
        a, b = a | {"emulator": ""}, b | {"emulator": ""}
    skipped = ("resolved", "output", "priors")
    return changed + [key for key in RunConfig.model_fields if key not in skipped and a.get(key) != b.get(key)]


def _comparable(config: RunConfig) -> dict:
    """Content of a run file in which omitted defaults, as in folders of version 0.1, make no difference."""
    content = _content(config)
    for keys in config.data_places.values():
        block = content
        for key in keys:
            block = block[key]
        # Version 0.1 always wrote the unit and the columns, even if they were the defaults.
        content = _set(content, keys, {"unit": "mK", "columns": DEFAULT} | block)
    others = {name: with_defaults(name, options) for name, options in config.others.items()}
    return content | {"likelihood": content["likelihood"] | others}


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
