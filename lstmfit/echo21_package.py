"""Import of ECHO21 and the fixed parameters of its model, shared by the simulator and the luminosity functions."""

import atexit
import contextlib
import importlib.util
import io
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder

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
    Otherwise it is initialised when other code imports ``mpi4py.MPI``, such as a sampler in a script: without that, its
    first use of MPI would abort the process.
    """
    try:
        import mpi4py

        before, new = mpi4py.rc.initialize, "mpi4py.MPI" not in sys.modules
        mpi4py.rc.initialize = before and under_mpirun()
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                import echo21
        finally:
            mpi4py.rc.initialize = before
            if new and before and "mpi4py.MPI" in sys.modules:
                _forget_import(sys.modules["mpi4py.MPI"])
    except ImportError as error:
        raise InputError(
            f'the simulator echo21 needs packages that are missing ({error}); to fix this: '
            'pip install "lstmfit[simulate]"'
        ) from error
    return echo21


def _forget_import(module):
    """Let the next import of ``mpi4py.MPI`` find the same module, and initialise MPI."""
    import mpi4py

    if not module.Is_initialized():
        sys.meta_path.insert(0, _MpiFinder(module))
        del sys.modules["mpi4py.MPI"], mpi4py.MPI


class _MpiFinder(MetaPathFinder, Loader):
    """Finds ``mpi4py.MPI`` once, without loading it again, and initialises MPI as its first import would have done."""

    def __init__(self, module):
        self._module = module

    def find_spec(self, name, path=None, target=None):
        if name != "mpi4py.MPI":
            return None
        sys.meta_path.remove(self)
        return importlib.util.spec_from_loader(name, self)

    def create_module(self, spec):
        return self._module

    def exec_module(self, module):
        import mpi4py

        if mpi4py.rc.initialize and not module.Is_initialized():
            module.Init_thread()
            atexit.register(_finalize, module)


def _finalize(module):
    if not module.Is_finalized():
        module.Finalize()
