"""The resolved run file of a fit, and the files that it names: their copies, their checksums, and what has changed."""

import os
import shutil
from pathlib import Path

from pydantic import ConfigDict, Field

from lstmfit import config as run_file
from lstmfit.config import RunConfig
from lstmfit.datasets.columns import DEFAULT
from lstmfit.emulator_source import files_of, is_emulator_path
from lstmfit.errors import InputError
from lstmfit.files import sha256
from lstmfit.likelihoods.base import with_defaults
from lstmfit.mistakes import validate_block
from lstmfit.schema import Block, Number

RUN_FILE, INPUTS = "run.yaml", "inputs"
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


def record(config: RunConfig) -> Record:
    """Record of a resolved run file."""
    return validate_block(Record, config.resolved or {}, "run.yaml: resolved")


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


def input_files(config: RunConfig) -> dict[tuple[str, ...], str]:
    """Files named in a run file, except a shipped emulator.

    Returns
    -------
    dict of tuple of str to str
        Path by its keys in the run file.
    """
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
        for keys, path in input_files(config).items()
        # A run resumes from its own data.csv, even if the original file no longer exists.
        if Path(path).exists()
    }


def write_config(config: RunConfig, folder: Path) -> None:
    """Write the resolved run file, and copies of small files that it names.

    Paths are relative to the folder if they share a parent folder, so that a project can be moved.
    """
    content, copied = _content(config), {}
    for keys, path in input_files(config).items():
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
    for key in new.sampler.settings.ADDED:
        if key not in a["sampler"].get(new.sampler.name, {}):
            b["sampler"][new.sampler.name].pop(key, None)
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
