"""Import of ECHO21 and the fixed parameters of its model, shared by the simulator and the luminosity functions."""

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
"""Fixed parameters of the model, with ECHO21's names."""


def import_echo21():
    """Import ECHO21 without the side effects of its import: MPI_Init, a filter for all warnings, a printed blank line.

    MPI is initialised, however, if this process was started by an MPI launcher, because other code may rely on it.
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
            f'the simulator echo21 needs packages that are missing ({error}); to fix this: '
            'pip install "lstmfit[simulate]"'
        ) from error
    return echo21
