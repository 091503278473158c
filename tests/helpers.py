"""What several test modules share: small runs, functions to sample, the command line."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

_PLACES = [folder / "shared/data/edges2018_figure1.csv" for folder in Path(__file__).resolve().parents]
EDGES = next((path for path in _PLACES if path.is_file()), _PLACES[0])
"""The public spectrum, where it is at hand; it may not be committed."""

THETA = {"fX": 0.1, "fLy": 1.0, "fesc": 0.05, "Tmin_vir": 1e4, "tstar": 0.5, "sLy": 2.64, "wX": 1.5}


def small_run(**changes):
    """Two free parameters of seven and few live points: seconds."""
    fixed = {name: value for name, value in THETA.items() if name not in ("fX", "Tmin_vir")}
    return {
        "emulator": "echo21",
        "data": {"mock": {"theta": THETA, "from": "simulator", "noise": 25, "seed": 2}},
        "likelihood": {"global_signal": {"noise": {"model": "white", "sigma": 25}}},
        "params": fixed,
        "sampler": {"polychord": {"nlive": 60, "num_repeats": 4, "seed": 1}},
    } | changes


def tiny_run(**changes):
    """The smallest fit that finishes: a second or two on one core."""
    return small_run(sampler={"polychord": {"nlive": 20, "num_repeats": 2, "seed": 1}}) | changes


def long_run():
    """Long enough to be stopped on the way."""
    content = small_run(params={name: THETA[name] for name in ("sLy", "wX", "tstar")})
    content["sampler"] = {"polychord": {"nlive": 80, "num_repeats": 12, "seed": 3}}
    return content


def problem_of(loglikelihood, prior_transform, names, derived_names=(), latex=None):
    """Two functions as a sampler takes them."""
    labels = [*names, *derived_names] if latex is None else latex
    return SimpleNamespace(
        loglikelihood=loglikelihood, prior_transform=prior_transform, names=tuple(names),
        derived_names=tuple(derived_names), latex=tuple(labels),
    )  # fmt: skip


def lstmfit(*arguments, **options):
    """The command line, as a process of its own."""
    command = [sys.executable, "-m", "lstmfit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
