"""Check that two runs are fits of the same problem except for the signal: an emulator and its simulator."""

import numpy as np

from lstmfit import config as run_file
from lstmfit.analysis.chains import Run
from lstmfit.errors import InputError
from lstmfit.files import sha256
from lstmfit.likelihoods.base import with_defaults


def check_direct(run: Run, true_run: Run) -> None:
    """Check that a run is a direct fit of the same problem, because any other difference would be taken for a bias.

    Parameters
    ----------
    run, true_run : Run
        A fit with the emulator, and one with the simulator.

    Raises
    ------
    InputError
        The second run also used an emulator, or the runs differ in data, parameters, priors or likelihoods.
    """
    signal = true_run.problem.signal
    if signal.emulator is not None:
        raise InputError(
            f"{true_run.folder} was fitted with the emulator {signal.name}, not with the simulator; give a fit with "
            "simulator: instead of emulator:, or use `lstmfit compare`"
        )
    one, other = run.problem.data, true_run.problem.data
    if set(one) != set(other) or not all(_same(one[name], other[name]) for name in one):
        raise InputError(
            f"{run.folder} and {true_run.folder} are fits of different data; give a direct fit of the same data, or "
            "use `lstmfit compare`"
        )
    names = list(run.problem.names)
    if set(names) != set(true_run.problem.names):
        raise InputError(
            f"{run.folder} sampled {', '.join(names)}, but {true_run.folder} sampled "
            f"{', '.join(true_run.problem.names)}; use the same run file for the direct fit"
        )
    blocks = [compared(r) for r in (run, true_run)]
    different = [key for key in sorted({*blocks[0], *blocks[1]}) if blocks[0].get(key) != blocks[1].get(key)]
    if different:
        raise InputError(
            f"{run.folder} and {true_run.folder} differ in {', '.join(different)}; use the same run file for the "
            "direct fit, with simulator: instead of emulator:, or use `lstmfit compare`"
        )


def _same(one, other) -> bool:
    return all(
        np.shape(getattr(one, what)) == np.shape(getattr(other, what))
        and np.allclose(getattr(one, what), getattr(other, what), rtol=1e-6, atol=1e-6)
        for what in ("frequency", "temperature", "weight")
    )


def compared(run: Run) -> dict:
    """Settings by name that must agree between two fits of the same problem, without the emulator error.

    Resolved values are compared, so omitting a default or renaming a noise file makes no difference.
    """
    config = run_file.load(run.folder / "run.yaml")
    blocks = {}
    for name, block in config.spectrum_blocks.items():
        likelihood = run.problem.spectra[name]
        noise, frequency = likelihood.noise, likelihood.spectrum.frequency
        extra = None if noise.extra is None else np.asarray(noise.extra).tolist()
        blocks |= {
            f"likelihood.{name}.noise": (noise.sigma, noise.name, noise.student, noise.dof, noise.samples, extra),
            f"likelihood.{name}.foreground": _component(block.foreground, frequency),
            f"likelihood.{name}.systematics": _component(block.systematics, frequency),
            f"likelihood.{name}.shared": block.shared,
        }
    for key, options in config.others.items():
        given = {name: value for name, value in options.items() if name != "mock"}
        blocks[f"likelihood.{key}"] = with_defaults(key, given)
    space = run.problem.space
    priors = {f"the prior of {key}": value.get("prior") for key, value in space.blocks().items() if "prior" in value}
    blocks |= priors | {f"the value of {key}": value for key, value in (space.fixed | space.expressions).items()}
    return {key: _rounded(value) for key, value in blocks.items()}


def _component(block, frequency):
    """Resolved options of a foreground or systematic error at the given channels, with the checksums of its files."""
    if block is None:
        return None
    return block.resolved(frequency).model_dump() | {key: sha256(path) for key, path in block.files.items()}


def _rounded(value):
    """Round to nine digits, because a range may have been written with fewer digits than it has."""
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value
