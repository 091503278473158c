"""Common interface to `pypolychord`, if installed, and PolyChord 1.14 through ctypes.

A library has `version`, `path`, `last_section` (of its resume file, None if unknown), `flush()`, and
`run(run, seed)`, where `run` is a `lstmfit.sampling.polychord.thread.PolyChordThread`.
"""

import contextlib
import ctypes
import importlib.util
import math
import os
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError
from lstmfit.mpi import under_mpirun
from lstmfit.sampling.polychord.build import (
    CHANGES,
    MPI_LIBRARY,
    POLYCHORD_VERSION,
    SERIAL_LIBRARY,
    polychord_folder,
    read_record,
)

LOGZERO = -1e30
"""Log-likelihoods at or below this count as zero likelihood."""
COMPRESSION = math.exp(-1)
"""The files are updated each time the prior volume has shrunk by this factor."""
MAX_PATH_BYTES = 300
"""The Fortran code truncates paths to 300 characters."""
INSTALL_LINE = "lstmfit doctor --install-polychord"
FALLBACK = "or use sampler: {nautilus: {}} in the run file (pip install nautilus-sampler, needs no compiler)"


def load_library(mpi=False):
    """Load `pypolychord` if it is installed, otherwise the library built by `lstmfit`.

    Parameters
    ----------
    mpi : bool
        Load the library for a run over several MPI ranks.

    Returns
    -------
    object
        See the module's docstring.

    Raises
    ------
    InputError
        PolyChord is not installed, or cannot be loaded.
    """
    if importlib.util.find_spec("pypolychord") is not None:
        return _PyPolyChord()
    return _CtypesLibrary(mpi)


def check_one_fit_per_rank(sampler: str, command: str) -> None:
    """Check that each MPI rank can do a fit of its own, if there are several.

    Parameters
    ----------
    sampler : str
        Name of the sampler.
    command : str
        Name of the command that distributes the fits, for the message.

    Raises
    ------
    InputError
        pypolychord uses all MPI ranks for one fit, so that they would wait for each other.
    """
    if under_mpirun() and sampler == "polychord" and Path(load_library().path).name == "pypolychord":
        raise InputError(f"{command} cannot use pypolychord under mpirun; start it without mpirun (--jobs N)")


class _PyPolyChord:
    """`pypolychord`, whose extension module makes the C call of PolyChord 1.22 with its 38 arguments."""

    last_section = None

    def __init__(self):
        import importlib.metadata

        import pypolychord

        try:
            self.version = importlib.metadata.version("pypolychord")
        except importlib.metadata.PackageNotFoundError:
            self.version = getattr(pypolychord, "__version__", "unknown")
        self.path = str(Path(pypolychord.__file__).parent)
        self.counts_repeats = True

    def run(self, run, seed):
        import pypolychord
        from pypolychord.settings import PolyChordSettings as TheirSettings

        s, problem = run.settings, run.problem
        n, n_derived = len(problem.names), len(problem.derived_names)
        likelihood, prior = run.callbacks()
        theirs = TheirSettings(
            n,
            n_derived,
            nlive=s.n_live,
            num_repeats=s.num_repeats,
            nprior=s.prior_draws,
            do_clustering=s.do_clustering,
            feedback=0,
            precision_criterion=s.precision_criterion,
            logzero=LOGZERO,
            max_ndead=-1,
            boost_posterior=0.0,
            posteriors=run.posteriors,
            equals=run.posteriors,
            cluster_posteriors=False,
            write_resume=True,
            write_paramnames=False,
            read_resume="resumed_from" in run.state,
            write_stats=True,
            write_live=True,
            write_dead=True,
            write_prior=True,
            compression_factor=COMPRESSION,
            base_dir=str(run.folder),
            file_root=run.root,
            grade_frac=list(s.grade_frac or [1.0]),
            grade_dims=list(s.grade_dims or [n]),
            seed=seed,
        )
        out_theta, out_derived = np.empty(n), np.zeros(n_derived)

        # pypolychord passes views of Fortran's memory; they are copied, because a likelihood may keep its arguments.
        def their_likelihood(theta):
            try:
                return likelihood(theta.copy(), out_derived), out_derived
            except BaseException as error:
                run.fail(error)

        def their_prior(cube):
            try:
                prior(cube.copy(), out_theta)
                return out_theta
            except BaseException as error:
                run.fail(error)

        pypolychord.run_polychord(their_likelihood, n, n_derived, theirs, their_prior, run.dumper)

    def flush(self):
        """Do nothing: the extension flushes its own output."""


_LIKELIHOOD = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_PRIOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_DUMPER = ctypes.CFUNCTYPE(None, *[ctypes.c_int] * 3, *[ctypes.c_void_p] * 3, ctypes.c_double, ctypes.c_double)


class _CtypesLibrary:
    """PolyChord 1.14 as built by `lstmfit.sampling.polychord.build`: one C call with 34 arguments."""

    last_section = "=== global equally weighted posterior points ==="

    def __init__(self, mpi):
        path = polychord_folder() / (MPI_LIBRARY if mpi else SERIAL_LIBRARY)
        if not path.is_file():
            if mpi and path.with_name(SERIAL_LIBRARY).is_file():
                raise InputError(
                    f"a run under mpirun needs {path}, which does not exist; to fix this: apt-get install "
                    f"libopenmpi-dev openmpi-bin, then {INSTALL_LINE}"
                )
            raise InputError(
                f"PolyChord is not installed (neither pypolychord nor {path} exists); to fix this: {INSTALL_LINE}, "
                f"{FALLBACK}"
            )
        # Otherwise the lines reach the log only when the process ends.
        os.environ.setdefault("GFORTRAN_UNBUFFERED_PRECONNECTED", "y")
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            if "executable stack" in str(error):
                raise InputError(
                    f"PolyChord {POLYCHORD_VERSION} needs an executable stack, which this system's C library does not "
                    "allow; install 1.22.2: pip install git+https://github.com/PolyChord/PolyChordLite"
                ) from error
            raise InputError(f"{path} cannot be loaded ({error}); rebuild it: {INSTALL_LINE}") from error
        self.version, self.path = POLYCHORD_VERSION, str(path)
        self.counts_repeats = read_record(path.parent).get("changes") == CHANGES

    def run(self, run, seed):
        s, problem = run.settings, run.problem
        n, n_derived = len(problem.names), len(problem.derived_names)
        likelihood, prior = run.callbacks()
        views, derived_views = _Views(n), _Views(n_derived)

        # ctypes only prints an exception raised in a callback, and Fortran would continue with garbage. So callbacks
        # must not raise.

        if n_derived:

            def c_likelihood(theta, _n, phi, _n_derived):
                try:
                    return likelihood(views[theta].copy(), derived_views[phi])
                except BaseException as error:
                    run.fail(error)
        else:

            def c_likelihood(theta, _n, _phi, _n_derived):
                try:
                    return likelihood(views[theta].copy(), None)
                except BaseException as error:
                    run.fail(error)

        def c_prior(cube, theta, _n):
            try:
                prior(views[cube].copy(), views[theta])
            except BaseException as error:
                run.fail(error)

        def c_dumper(n_dead, n_live, n_columns, live, dead, logweights, logZ, logZ_err):
            run.dumper(
                _matrix(live, n_live, n_columns),
                _matrix(dead, n_dead, n_columns),
                _matrix(logweights, n_dead, 1)[:, 0],
                logZ,
                logZ_err,
            )

        grade_dims, grade_frac = s.grade_dims or (n,), s.grade_frac or (1.0,)
        # These three objects must stay alive during the call.
        c_functions = _LIKELIHOOD(c_likelihood), _PRIOR(c_prior), _DUMPER(c_dumper)
        arguments = [
            *c_functions,
            ctypes.c_int(s.n_live),
            ctypes.c_int(s.num_repeats),
            ctypes.c_int(s.prior_draws),
            ctypes.c_bool(s.do_clustering),
            ctypes.c_int(0),  # feedback
            ctypes.c_double(s.precision_criterion),
            ctypes.c_double(LOGZERO),
            ctypes.c_int(-1),  # no maximum number of dead points
            ctypes.c_double(0.0),  # no phantom points
            ctypes.c_bool(run.posteriors),
            ctypes.c_bool(run.posteriors),  # equally weighted
            ctypes.c_bool(False),  # posteriors of clusters
            ctypes.c_bool(True),  # resume file
            ctypes.c_bool(False),  # .paramnames: we write it before the run
            ctypes.c_bool("resumed_from" in run.state),
            ctypes.c_bool(True),  # stats
            ctypes.c_bool(True),  # live points
            ctypes.c_bool(True),  # dead points
            ctypes.c_bool(True),  # prior points
            ctypes.c_double(COMPRESSION),
            ctypes.c_int(n),
            ctypes.c_int(n_derived),
            ctypes.create_string_buffer(os.fsencode(run.folder), MAX_PATH_BYTES),
            ctypes.create_string_buffer(os.fsencode(run.root), MAX_PATH_BYTES),
            ctypes.c_int(len(grade_dims)),
            (ctypes.c_double * len(grade_frac))(*grade_frac),
            (ctypes.c_int * len(grade_dims))(*grade_dims),
            ctypes.c_int(0),  # no variable number of live points
            (ctypes.c_double * 1)(),
            (ctypes.c_int * 1)(),
            ctypes.c_int(seed),
        ]
        call = self._library.polychord_c_interface
        call.restype = None
        call(*arguments)

    def flush(self):
        """Flush Fortran's output buffers."""
        with contextlib.suppress(AttributeError):
            self._library._gfortran_flush_i4(None)


class _Views(dict):
    """Arrays over Fortran's buffers, cached by address: creating one is the slowest step of a callback."""

    def __init__(self, n):
        self._type = ctypes.c_double * n

    def __missing__(self, address):
        if len(self) > 4096:
            self.clear()
        view = self[address] = np.frombuffer(self._type.from_address(address))
        return view


def _matrix(address, rows, columns):
    """Array over Fortran's (columns, rows), without a copy."""
    if not rows:
        return np.empty((0, columns))
    return np.frombuffer((ctypes.c_double * (rows * columns)).from_address(address)).reshape(rows, columns)
