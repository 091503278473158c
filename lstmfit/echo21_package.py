"""The package ECHO21, and the fixed part of its model: what the simulator and the luminosity functions share."""

import contextlib
import io
import warnings

from lstmfit.errors import InputError
from lstmfit.mpi import under_mpirun

MODEL = {
    "Ho": 67.4,
    "Om_m": 0.315,
    "Om_b": 0.049,
    "sig8": 0.811,
    "ns": 0.965,
    "Tcmbo": 2.725,
    "Yp": 0.245,
    "type": "semi-emp",
    "hmf": "sheth99",
    "mdef": "fof",
}
"""The fixed part of the model, in ECHO21's own names."""


def import_echo21():
    """Import ECHO21 without what its import does besides: MPI_Init, a filter for all warnings, a blank line.

    MPI is left to start on import where this process was started by an MPI launcher, since the rest of the
    program may then count on it.
    """
    try:
        import mpi4py

        before = mpi4py.rc.initialize
        mpi4py.rc.initialize = before and under_mpirun()
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                import echo21
        finally:
            mpi4py.rc.initialize = before
    except ImportError as error:
        raise InputError(
            f'the simulator echo21 needs packages that are missing ({error}): pip install "lstmfit[simulate]"'
        ) from error
    return echo21
