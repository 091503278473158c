"""The two PolyChords: `pypolychord` where it imports, else PolyChord 1.14 through ctypes; one interface.

A library has `version`, `path`, `last_section` (of its resume file, None where that is not known), `flush()`, and
`run(run, seed)` with a `lstmfit.sampling.polychord.thread.PolyChordThread`.
"""

import contextlib
import ctypes
import importlib.util
import math
import os
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError
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
"""The files are written each time the prior volume has shrunk by this factor."""
MAX_PATH_BYTES = 300
"""Fortran holds every path in 300 characters and cuts what is longer."""
INSTALL_LINE = "lstmfit doctor --install-polychord"
FALLBACK = "or put sampler: {nautilus: {}} into the run file (pip install nautilus-sampler, no compiler)"


def load_library(mpi=False):
    """Load `pypolychord` if it is installed, else the built library.

    Parameters
    ----------
    mpi : bool
        The library for a run over several ranks.

    Returns
    -------
    object
        With the attributes `version` and `path`.

    Raises
    ------
    InputError
        There is none, or it cannot be loaded.
    """
    if importlib.util.find_spec("pypolychord") is not None:
        return _PyPolyChord()
    return _CtypesLibrary(mpi)


class _PyPolyChord:
    """`pypolychord`, whose own extension calls 1.22's 38 arguments."""

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
            nprior=s.n_live,
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

        # Its arrays are views of Fortran's memory; a likelihood may keep what it is given.
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
        """Nothing is buffered: the extension flushes its own output."""


_LIKELIHOOD = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_PRIOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_DUMPER = ctypes.CFUNCTYPE(None, *[ctypes.c_int] * 3, *[ctypes.c_void_p] * 3, ctypes.c_double, ctypes.c_double)


class _CtypesLibrary:
    """PolyChord 1.14 as `lstmfit.sampling.build` makes it: one C call of 34 arguments."""

    last_section = "=== global equally weighted posterior points ==="

    def __init__(self, mpi):
        path = polychord_folder() / (MPI_LIBRARY if mpi else SERIAL_LIBRARY)
        if not path.is_file():
            if mpi and path.with_name(SERIAL_LIBRARY).is_file():
                raise InputError(
                    f"this runs under mpirun, but {path} is missing; to fix this: apt-get install libopenmpi-dev "
                    f"openmpi-bin, then {INSTALL_LINE}"
                )
            raise InputError(
                f"PolyChord is not installed (neither pypolychord nor {path} is there); to fix this: {INSTALL_LINE}, "
                f"{FALLBACK}"
            )
        # Lines reach the log as they are written, not when the process ends.
        os.environ.setdefault("GFORTRAN_UNBUFFERED_PRECONNECTED", "y")
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            if "executable stack" in str(error):
                raise InputError(
                    f"this system's C library refuses PolyChord {POLYCHORD_VERSION} (it needs an executable stack); "
                    "install 1.22.2: pip install git+https://github.com/PolyChord/PolyChordLite"
                ) from error
            raise InputError(f"{path} cannot be loaded ({error}); build it again: {INSTALL_LINE}") from error
        self.version, self.path = POLYCHORD_VERSION, str(path)
        self.counts_repeats = read_record(path.parent).get("changes") == CHANGES

    def run(self, run, seed):
        s, problem = run.settings, run.problem
        n, n_derived = len(problem.names), len(problem.derived_names)
        likelihood, prior = run.callbacks()
        views, derived_views = _Views(n), _Views(n_derived)

        # ctypes prints what a callback raises and lets Fortran continue with garbage, so no exception may leave one.

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
        # The three objects must live as long as the call.
        c_functions = _LIKELIHOOD(c_likelihood), _PRIOR(c_prior), _DUMPER(c_dumper)
        arguments = [
            *c_functions,
            ctypes.c_int(s.n_live),
            ctypes.c_int(s.num_repeats),
            ctypes.c_int(s.n_live),  # draws from the prior
            ctypes.c_bool(s.do_clustering),
            ctypes.c_int(0),  # feedback
            ctypes.c_double(s.precision_criterion),
            ctypes.c_double(LOGZERO),
            ctypes.c_int(-1),  # no limit of the dead points
            ctypes.c_double(0.0),  # no phantom points
            ctypes.c_bool(run.posteriors),
            ctypes.c_bool(run.posteriors),  # equally weighted
            ctypes.c_bool(False),  # posteriors of clusters
            ctypes.c_bool(True),  # resume file
            ctypes.c_bool(False),  # .paramnames: ours is written before the run
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
        """Empty Fortran's output buffers."""
        with contextlib.suppress(AttributeError):
            self._library._gfortran_flush_i4(None)


class _Views(dict):
    """Arrays over Fortran's buffers, kept by address: building one takes longer than everything else in a
    callback.
    """

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
