"""Fits of the global 21-cm signal with an LSTM emulator, and the bias that the emulator causes.

Importing this package loads nothing heavy: no data, TensorFlow, numba, MPI or network.
"""

from lstmfit._version import __version__

__all__ = ["Emulator", "__version__"]


def __getattr__(name):
    """Load `Emulator` at first use, so that a bare import stays free."""
    if name == "Emulator":
        from lstmfit.emulator import Emulator

        return Emulator
    raise AttributeError(f"module 'lstmfit' has no attribute {name!r}")
