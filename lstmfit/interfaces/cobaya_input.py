"""The Cobaya input of a run file. Does not import Cobaya."""

import math
import time
from pathlib import Path

import numpy as np

from lstmfit.config import UNNAMED, RunConfig
from lstmfit.errors import InputError
from lstmfit.files import write_text
from lstmfit.interfaces.cobaya_params import cobaya_function, cobaya_prior
from lstmfit.likelihoods.base import class_of, with_defaults
from lstmfit.likelihoods.joint_spectra import JointSpectra
from lstmfit.problem import Problem, build
from lstmfit.spectra import find_uses
from lstmfit.yaml_files import dump_yaml

PACKAGE = "lstmfit.interfaces.cobaya"
CLASSES = {
    "planck_tau": "PlanckTau",
    "x_HI": "NeutralFraction",
    "uvlf_bouwens2015": "UVLFBouwens2015",
    "uvlf_bouwens2021": "UVLFBouwens2021",
}
"""Cobaya's classes of the complementary likelihoods that ship, by their names in run files."""
RESERVED = ("input", "updated")
"""Names of files that Cobaya refuses, because they are endings of its output."""
POLYCHORD = ("nlive", "num_repeats", "nprior", "precision_criterion", "seed")
"""Settings that Cobaya's wrapper of PolyChord shares with ours."""


def write_input(config: RunConfig, path, force: bool = False) -> Path:
    """Write the Cobaya input of a run file, and the data of its mocks beside it.

    Parameters
    ----------
    config : RunConfig
        The run file.
    path : path
        YAML file to write. Mock data are written to ``STEM_NAME.csv`` beside it.
    force : bool
        Overwrite existing files.

    Raises
    ------
    InputError
        Cobaya refuses the name, a file exists, the run file is invalid, or it contains something that Cobaya cannot
        express.
    """
    path = Path(path)
    if path.stem in RESERVED:
        raise InputError(f"{path.name}: Cobaya reserves the names {' and '.join(RESERVED)}; give another name")
    problem = build(config)
    data = {
        name: path.with_name(f"{path.stem}_{name}.csv") for name, block in config.data.items() if block.mock is not None
    }
    taken = [file for file in (path, *data.values()) if file.exists()]
    if taken and not force:
        raise InputError(f"{taken[0]} already exists; use --force to overwrite it, or choose another file with -o")
    content = make_input(config, problem, data)
    for name, file in data.items():
        problem.data[name].write(file)
    write_text(path, f"# Cobaya input written by lstmfit; to run it: cobaya-run {path.name}\n{dump_yaml(content)}")
    return path


def make_input(config: RunConfig, problem: Problem, data: dict[str, Path]) -> dict:
    """Content of the Cobaya input.

    Parameters
    ----------
    config : RunConfig
        The run file, with absolute paths.
    problem : Problem
        Its problem.
    data : dict of str to Path
        Files of the data of mocks, by the names of their spectra.
    """
    written = config.model_dump(by_alias=True, exclude_none=True, mode="json")
    keys = ("emulator", "simulator", "signal", "extrapolate")
    signal = {key: written[key] for key in keys if written.get(key)}
    speeds = _speeds(problem)
    spectra = _spectra(config, problem, written, data)
    likelihoods = spectra | {
        name: _complementary(name, problem.options[name], signal) for name in problem.options
    }
    for name, block in likelihoods.items():
        block["speed"] = speeds.get(name, speeds[None])
        if not problem.signal.parameters:
            block["without_signal"] = True
    theory = {f"{PACKAGE}.Signal": signal | {"speed": speeds["signal"]}} if problem.signal.parameters else {}
    return {
        "theory": theory,
        "likelihood": likelihoods,
        "params": _params(problem),
        **_sorted_priors(problem),
        "sampler": _sampler(config),
    }


def _spectra(config, problem, written, data):
    """Blocks of the likelihoods of spectra."""
    uses = find_uses(config)
    blocks = {name: config.data[name].model_dump(by_alias=True, exclude_none=True, mode="json") for name in config.data}
    blocks |= {name: {"file": str(file.absolute())} for name, file in data.items()}
    own = [name for name in uses if name in config.spectrum_blocks]
    other = [name for name in uses if name not in own]
    if other:
        raise InputError(
            f"likelihood.{other[0]} is a likelihood of a spectrum of your own, which has no form for Cobaya; write a "
            "Cobaya likelihood that uses lstmfit.interfaces.cobaya.Signal"
        )
    if any(isinstance(part, JointSpectra) for part in problem.likelihoods.values()):
        content = {name: written["likelihood"][name] for name in own}
        return {"spectra": {"class": f"{PACKAGE}.Spectra", "data": blocks, "likelihood": content}}
    found = {}
    for name in own:
        use = uses[name]
        options = {k: v for k, v in written["likelihood"][name].items() if k not in ("class", "data", "shared")}
        # Names in the run that are plain, because they are shared.
        plain = [n for n in problem.spectra[name].names if use.label and not n.endswith(f"_{use.label}")]
        labels = {"label": use.label, "shared": plain} if use.label else {}
        found[name] = {"class": f"{PACKAGE}.GlobalSignal", "data": blocks[use.data], **options, **labels}
    return found


def _complementary(name, options, signal):
    of = class_of(name, options)
    options = {key: value for key, value in with_defaults(name, options).items() if key != "class"}
    if of in CLASSES:
        return {"class": f"{PACKAGE}.{CLASSES[of]}", "of": signal, **options}
    return {"class": f"{PACKAGE}.Own", "likelihood": of, "of": signal, "options": options}


def _params(problem: Problem) -> dict[str, dict]:
    """Parameters: sampled, fixed and computed; ``drop`` those that only others are computed from."""
    used = {p.name for p in problem.signal.parameters}
    for part in problem.likelihoods.values():
        used |= {*part.names, *part.outputs}
    blocks = {}
    for name, block in problem.space.blocks().items():
        latex = {"latex": block["latex"]} if "latex" in block else {}
        drop = {} if name in used or "derived" in block else {"drop": True}
        if "prior" in block:
            given = {"prior": cobaya_prior(block["prior"])}
        elif "derived" in block:
            given = {"derived": cobaya_function(block["derived"])}
        else:
            value = block["value"]
            given = {"value": cobaya_function(value) if isinstance(value, str) else value}
        blocks[name] = given | latex | drop
    return blocks


def _sorted_priors(problem: Problem) -> dict:
    """External priors of sorted groups: zero out of order, normalised."""
    names, priors = problem.names, {}
    for i, group in enumerate(problem.prior.groups):
        members = [names[at] for at in group]
        order = " <= ".join(members)
        norm = math.lgamma(len(members) + 1)
        priors[f"sorted_{i}"] = f"lambda {', '.join(members)}: {norm!r} if {order} else -np.inf"
    return {"prior": priors} if priors else {}


def _sampler(config: RunConfig) -> dict:
    if config.sampler.name != "polychord":
        return {"evaluate": None}
    settings = config.sampler.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"polychord": {key: settings[key] for key in POLYCHORD if key in settings}}


def _speeds(problem: Problem) -> dict:
    """Evaluations per second of the signal and of each likelihood, by which Cobaya orders its blocks."""
    theta = problem.prior_transform(np.full(len(problem.names), 0.5))
    outputs = np.array(problem.signal.outputs(problem.signal_parameters(theta)), dtype=float)

    def speed(call):
        call()
        begun, n = time.perf_counter(), 0
        while (passed := time.perf_counter() - begun) < 0.02:
            call()
            n += 1
        return float(f"{n / passed:.2g}")

    speeds = {"signal": speed(lambda: problem.signal.outputs(problem.signal_parameters(theta)))}
    for name, part in problem.likelihoods.items():
        arguments = problem.arguments(outputs, theta, name)
        speeds[name] = speed(lambda part=part, arguments=arguments: part(*arguments))
    speeds[None] = min(speeds[name] for name in problem.likelihoods)
    return speeds


def default_output(source, config: RunConfig) -> Path:
    """Name of the input if none is given: that of the run file, in the current folder."""
    name = UNNAMED if isinstance(source, dict) else Path(source).stem
    return Path(f"{name}_cobaya.yaml")
