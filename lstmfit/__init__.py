"""Fits of the global 21-cm signal with an LSTM emulator, and the bias that the emulator causes.

The functions and classes below are all that most scripts need. Importing this package loads nothing heavy: no data,
TensorFlow, numba, MPI or network.

fit(source, output)
    Fit a run file; a finished run is returned.
read_run(folder)
    Read a finished run from its folder.
measure_bias(run)
    Emulation bias of a finished run, measured with the simulator.
compare(run, other, ...)
    Compare posteriors and evidences of runs or chains.
simulate(path, n)
    Simulate a set of signals to train on.
train(signals, output)
    Train an emulator on a set of signals.
Emulator
    The emulator: ``Emulator.load("echo21")``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lstmfit._version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lstmfit.analysis.bias import measure_bias
    from lstmfit.analysis.finished_run import FinishedRun, read_run
    from lstmfit.analysis.several import Comparison
    from lstmfit.emulator import Emulator
    from lstmfit.emulator.train_emulator import train
    from lstmfit.files import AnyPath
    from lstmfit.simulators.campaign import simulate_set as simulate

__all__ = ["Emulator", "__version__", "compare", "fit", "measure_bias", "read_run", "simulate", "train"]

_HOMES = {
    "Emulator": "lstmfit.emulator:Emulator",
    "measure_bias": "lstmfit.analysis.bias:measure_bias",
    "read_run": "lstmfit.analysis.finished_run:read_run",
    "simulate": "lstmfit.simulators.campaign:simulate_set",
    "train": "lstmfit.emulator.train_emulator:train",
}


def fit(source: "AnyPath | dict[str, Any]", output: "AnyPath | None" = None, **options: Any) -> "FinishedRun | None":
    """Fit a run file; as `lstmfit.driver.fit`, but the finished run is returned as an object.

    Parameters
    ----------
    source : path, str or mapping
        A run file, the name of a shipped one, or its content.
    output : path, optional
        Output folder.
    **options
        ``jobs``, ``resume``, ``force``, ``progress``.

    Returns
    -------
    lstmfit.analysis.finished_run.FinishedRun or None
        None on MPI ranks other than the first.
    """
    from lstmfit.analysis.finished_run import read_run
    from lstmfit.driver import fit as run_fit
    from lstmfit.mpi import promised_rank

    folder = run_fit(source, output, **options)
    return read_run(folder, trust=True) if promised_rank() == 0 else None


def compare(*runs: "FinishedRun | AnyPath", log10: "Sequence[str]" = (), seed: int = 0) -> "Comparison":
    """Compare two or more posteriors and their evidences.

    Parameters
    ----------
    *runs : FinishedRun or path
        Finished runs, their folders, or the beginnings of the file names of any chains; the reference (the truth) last.
    log10 : sequence of str
        Parameters to convert to log10, in addition to those of our own runs.
    seed : int
        Seed of the estimates.

    Returns
    -------
    lstmfit.analysis.several.Comparison
        Its ``result`` is a dictionary, see `lstmfit.analysis.several.compare_chains`.

    Raises
    ------
    InputError
        There are fewer than two, one of them cannot be read, or they have nothing in common.
    """
    from lstmfit.analysis.foreign_chains import read_chain
    from lstmfit.analysis.several import compare_chains

    return compare_chains([read_chain(getattr(run, "folder", run)) for run in runs], log10, seed)


def __getattr__(name: str) -> Any:
    """Load the others at first use, so that a bare import stays free."""
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'lstmfit' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names that are loaded at first use are listed too."""
    return sorted({*globals(), *__all__})
