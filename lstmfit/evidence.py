"""Evidence over variants of a run file: one fit for each combination of settings, and their comparison.

A folder contains one comparison: ``plan.json``, ``data.csv`` with the data, a run folder for each variant,
``evidence.json`` and ``evidence.png``. An interrupted comparison resumes: finished fits are skipped, begun ones go on.
"""

import contextlib
import functools
import itertools
import json
import re
from pathlib import Path

import numpy as np

from lstmfit import config as run_file
from lstmfit import run_folder
from lstmfit.analysis.variants import compare_variants
from lstmfit.config import UNNAMED, RunConfig
from lstmfit.data import mock_of
from lstmfit.driver import fit_here, resolve
from lstmfit.errors import InputError, listed, one_line
from lstmfit.files import locked, write_text
from lstmfit.many_fits import finish, fit_workers
from lstmfit.priors import load_set
from lstmfit.priors.expressions import names_in
from lstmfit.problem import Problem, build
from lstmfit.sampling.polychord.libraries import check_one_fit_per_rank
from lstmfit.sampling.samplers import make_sampler
from lstmfit.schema import shown
from lstmfit.signal_functions import make_signal
from lstmfit.yaml_files import dump_yaml, parse_yaml

PLAN, RESULT, PICTURE = "plan.json", "evidence.json", "evidence.png"
AS_IS = "as-is"
"""Value of a setting that keeps what the run file says."""
SIGNALS = ("emulator", "simulator", "signal")
"""Keys of the run file of which exactly one is given."""
LONGEST = 80
"""Longest name of a folder in characters."""
MOST_VARIANTS = 1000


def evidence(source, settings, output, *, jobs: int | None = None, force: bool = False, progress=None) -> dict | None:
    """Fit all variants of a run file and compare their evidences; repeat the call to resume after an interruption.

    The fits are distributed one at a time to the ranks under mpirun, otherwise to processes on this machine.

    Parameters
    ----------
    source : path, str or mapping
        A run file.
    settings : mapping or sequence of str
        Values of each key, such as ``{"likelihood.global_signal.foreground.terms": [4, 5]}``; or texts, see
        `parse_settings`. ``as-is`` keeps what the run file says.
    output : path
        Folder of the comparison.
    jobs : int, optional
        Number of processes; all cores by default. Ignored under MPI.
    force : bool
        Remove the fits in the folder and start over.
    progress : callable, optional
        Called with (finished, n).

    Returns
    -------
    dict or None
        See `lstmfit.analysis.variants.compare_variants`; None on MPI ranks other than the first.

    Raises
    ------
    InputError
        A setting does not fit the run file, two variants are equal, or the folder is in use or contains something else.
        Nothing is written then.
    SimulationError
        A worker process died.
    """
    settings = settings if isinstance(settings, dict) else parse_settings(settings)
    folder = Path(output)
    with fit_workers(folder, jobs) as pool:
        if pool is None:
            return None
        base, problem, variants = _plan(source, settings, folder)
        plan = {"run": _fixed_content(resolve(base, problem)), "variants": {n: s for n, (s, _) in variants.items()}}
        plan = json.loads(json.dumps(plan))
        _check_folder(folder, plan, run_folder.data_files(base).values(), force)
        folder.mkdir(parents=True, exist_ok=True)
        busy = f"another evidence run is active in {folder}; wait for it or choose another folder with -o"
        with locked(folder / "lock", busy):
            _begin(folder, plan, base, problem, force)
            todo = [name for name in variants if run_folder.state(folder / name) != "finished"]
            tasks = [(name, variants[name][1]) for name in todo]
            finish(pool, functools.partial(_fit_variant, str(folder)), tasks, len(variants), progress)
            return compare_variants(folder, plan["variants"])


def _fit_variant(folder: str, task) -> str:
    """Fit one variant; runs in any process."""
    name, config = task
    fit_here(config, Path(folder) / name)
    return name


# ---------------------------------------------------------------- settings


def parse_settings(texts) -> dict[str, list]:
    """Settings written as ``KEY.PATH=VALUE,VALUE``, with the values in YAML.

    Parameters
    ----------
    texts : sequence of str
        The settings.

    Raises
    ------
    InputError
        There are none, one has no key or no values, or a key is repeated.
    """
    if not texts:
        raise InputError("no variants are given; name a key of the run file and its values: --set KEY.PATH=VALUE,VALUE")
    settings = {}
    for text in texts:
        key, equals, values = text.partition("=")
        key = key.strip()
        if not equals or not key or not values.strip():
            raise InputError(f"--set {shown(text)} is not a setting; give --set KEY.PATH=VALUE,VALUE")
        if key in settings:
            raise InputError(f"--set {key} is given twice; list all its values in one: --set {key}=VALUE,VALUE")
        # A flow sequence, so that [50, 100] and {model: hills} can be values too.
        settings[key] = parse_yaml(f"[{values}]", f"--set {key}")
        if not isinstance(settings[key], list) or not settings[key]:
            raise InputError(f"--set {shown(text)} gives no values; give --set {key}=VALUE,VALUE")
    return settings


def _plan(source, settings: dict[str, list], folder: Path):
    """Base run file and its problem; settings and run file of each variant by its folder name. Checks everything."""
    base = run_file.load(source)
    problem = build(base)
    check_one_fit_per_rank(base.sampler.name, "evidence")
    _check_keys(settings)
    n = 1
    for values in settings.values():
        n *= len(values)
    if n > MOST_VARIANTS:
        raise InputError(f"--set: these are {n:,} variants, but {MOST_VARIANTS:,} are the most; give fewer values")
    labels, variants, seen = short_names(settings), {}, {}
    for values in itertools.product(*settings.values()):
        chosen = dict(zip(settings, values))
        said = " ".join(f"--set {key}={_text(value)}" for key, value in chosen.items())
        config = _variant(base, problem, chosen, said, folder)
        content = dump_yaml(config.model_dump(by_alias=True, exclude_none=True))
        if content in seen:
            raise InputError(f"two variants are equal: {seen[content]} and {said}; leave one of the values out")
        seen[content] = said
        _check_variant(config, base, problem, said)
        name = _folder_name([f"{labels[key]}={_text(value)}" for key, value in chosen.items()], variants)
        variants[name] = chosen, config
    return base, problem, variants


def _check_keys(settings):
    for key in settings:
        first = key.split(".")[0]
        if first == "data":
            raise InputError(f"--set {key}: evidences of different data cannot be compared; set another key")
        if first in ("output", "resolved"):
            raise InputError(f"--set {key}: {first} is no part of the model; set another key")


def short_names(keys) -> dict[str, str]:
    """Shortest endings of dotted keys that tell them apart, by key."""
    parts = {key: key.split(".") for key in keys}
    names = {}
    for key, own in parts.items():
        for n in range(1, len(own) + 1):
            names[key] = ".".join(own[-n:])
            if sum(other[-n:] == own[-n:] for other in parts.values()) == 1:
                break
    return names


def _text(value) -> str:
    """A value as it is written in YAML on one line."""
    if isinstance(value, str):
        return value
    return " ".join(dump_yaml([value]).removeprefix("- ").split())


def _folder_name(parts, taken) -> str:
    name = ",".join(re.sub(r"[^\w.+=-]+", "-", part).strip("-") for part in parts)[:LONGEST]
    numbered = (f"{name}-{i}" for i in itertools.count(2))
    while name in taken:
        name = next(numbered)
    return name


# ---------------------------------------------------------------- one variant


def _variant(base: RunConfig, problem: Problem, chosen: dict, said: str, folder: Path) -> RunConfig:
    """Run file of a variant, with absolute paths."""
    # What the user wrote, without the defaults: those of another foreground model are others.
    content = base.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)
    content.pop("output", None)
    chosen = {key: value for key, value in chosen.items() if not (isinstance(value, str) and value == AS_IS)}
    changed = [key for key in chosen if key.split(".")[0] in SIGNALS]
    if len({key.split(".")[0] for key in changed}) > 1:
        raise InputError(f"{said}: a variant has one signal; give the alternatives in one --set")
    if changed:
        content = _without_signal(content, base, problem, folder, changed[0])
    for key, value in chosen.items():
        content = _with(content, key.split("."), value, said)
    config = run_file.validate(content, said)
    return _without_unused(config, problem) if changed else config


def _without_signal(content, base, problem, folder, key):
    """The run file without its signal, with the data and the other likelihoods as drawn if they are mocks."""
    content = dict(content)
    if "." not in key:
        for name in SIGNALS:
            content.pop(name, None)
    if mock_of(base) is not None:
        # A mock is made by its own signal.
        files = run_folder.data_files(base)
        for name, data in base.data.items():
            if data.mock is not None:
                written = {"file": str((folder / files[name]).absolute())}
                content["data"] = written if name == UNNAMED else content["data"] | {name: written}
        content["likelihood"] = content["likelihood"] | problem.options
    return content


def _with(content, path, value, said, at=""):
    """Copy of nested mappings with one value set; None removes the key."""
    if not isinstance(content, dict):
        raise InputError(f"{said}: {at} is {shown(content)}, not a mapping; give the value of {at} as a whole")
    # A name may contain dots itself, such as the path of a likelihood of one's own.
    n = next((n for n in range(len(path), 0, -1) if ".".join(path[:n]) in content), 1)
    key, rest = ".".join(path[:n]), path[n:]
    if not key:
        raise InputError(f"{said}: the key has an empty part; give --set KEY.PATH=VALUE,VALUE")
    if not rest and value is None:
        return {name: block for name, block in content.items() if name != key}
    if rest:
        value = _with(content.get(key) or {}, rest, value, said, f"{at}.{key}".strip("."))
    return content | {key: value}


def _without_unused(config: RunConfig, problem: Problem) -> RunConfig:
    """Remove what belongs to the old signal: its parameters, those from which they are computed, and emulator_error."""
    new = make_signal(config)
    kept = {p.name for p in new.parameters}
    gone = {p.name for p in problem.signal.parameters} - kept
    parts = problem.likelihoods.values()
    needed = kept.union(*(part.names for part in parts), *(part.outputs for part in parts))
    gone -= needed
    params = config.params
    texts = {name: block.value if isinstance(block.value, str) else block.derived for name, block in params.items()}
    uses = {name: set(names_in(text)) for name, text in texts.items() if text is not None}
    while True:
        used = set().union(*(names for name, names in uses.items() if name not in gone))
        lost = {name for name, names in uses.items() if names & gone}
        # Parameters from which only those of the old signal were computed.
        idle = set().union(*(uses[name] for name in gone.intersection(uses))) - needed - used
        if lost | idle <= gone:
            break
        gone |= lost | idle
    changes = {"params": {name: block for name, block in params.items() if name not in gone}}
    if config.priors is not None:
        sets = [config.priors] if isinstance(config.priors, str) else config.priors
        changes["priors"] = [name for name in sets if set(load_set(name)) & needed] or None
    if new.emulator is None:
        changes["likelihood"] = config.with_spectrum_blocks(emulator_error=False)
    return config.model_copy(update=changes)


def _check_variant(config: RunConfig, base: RunConfig, problem: Problem, said: str) -> None:
    """Build the variant and evaluate it once."""
    if config.likelihood.keys() != base.likelihood.keys():
        raise InputError(f"{said}: evidences of different data cannot be compared; keep the likelihoods as they are")
    try:
        # The data of the base, because a mock is not written yet.
        made = build(config, problem.data)
        make_sampler(resolve(config, made)).check(made)
        made.loglikelihood(made.prior_transform(np.full(len(made.names), 0.5)))
    except InputError as error:
        raise InputError(f"{said}: {error}") from None


# ---------------------------------------------------------------- the folder


def _fixed_content(resolved: RunConfig) -> dict:
    """Resolved run file without the time and the versions, which may change between two parts of a comparison."""
    content = resolved.model_dump(by_alias=True, exclude_none=True)
    content["resolved"] = {k: v for k, v in content["resolved"].items() if k not in ("created", "versions")}
    return content


def _read_plan(folder: Path) -> dict | None:
    file = folder / PLAN
    if not file.is_file():
        return None
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
        return {"run": dict(plan["run"]), "variants": {name: dict(s) for name, s in plan["variants"].items()}}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} is damaged ({one_line(error)}); choose another folder with -o") from None


def _check_folder(folder: Path, plan: dict, data, force: bool) -> None:
    """Check that the folder is empty or contains this comparison, or one with fewer variants."""
    old = _read_plan(folder)
    if old is None:
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if there - {"lock", *data}:
            raise InputError(f"{folder} contains files that are not of an evidence run; choose another folder with -o")
        return
    if force:
        return
    different = [key for key in plan["run"] if plan["run"][key] != old["run"].get(key)]
    lost = [name for name, chosen in old["variants"].items() if plan["variants"].get(name) != chosen]
    if different or lost:
        what = f"differs in {', '.join(different)}" if different else f"also with {listed(lost, 3)}"
        raise InputError(
            f"{folder} contains another evidence run ({what}); choose another folder with -o, or use --force to "
            "replace it"
        )


def _begin(folder: Path, plan: dict, base: RunConfig, problem: Problem, force: bool) -> None:
    """Write the data and the plan; with `force` remove the fits of the old one first."""
    data = run_folder.data_files(base).values()
    if force:
        for name in (_read_plan(folder) or {"variants": ()})["variants"]:
            if run_folder.is_run(folder / name):
                run_folder.clear(folder / name)
                with contextlib.suppress(OSError):
                    (folder / name).rmdir()
        for name in (RESULT, PICTURE, *data):
            (folder / name).unlink(missing_ok=True)
    if not all((folder / name).is_file() for name in data):
        run_folder.write_data(problem.data, base, folder)
    write_text(folder / PLAN, json.dumps(plan))
