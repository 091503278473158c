"""Fits of the global 21-cm signal with an LSTM emulator, and the bias that the emulator causes.

Importing this package loads nothing heavy: no data, TensorFlow, numba, MPI or network.
"""

from lstmfit._version import __version__

__all__ = ["Emulator", "__version__", "fit", "read_run"]


def fit(source, output=None, **options):
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


def __getattr__(name):
    """Load the others at first use, so that a bare import stays free."""
    if name == "Emulator":
        from lstmfit.emulator import Emulator

        return Emulator
    if name == "read_run":
        from lstmfit.analysis.finished_run import read_run

        return read_run
    raise AttributeError(f"module 'lstmfit' has no attribute {name!r}")
