"""nautilus: nested importance sampling with neural networks for bounds (Lange 2023, MNRAS 525, 3181).

A pure Python package that needs about ten times fewer likelihood calls than PolyChord and makes them in batches. Its
samples have weights but no birth contours: evidence and effective sample size are those of nautilus.
"""

import functools
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, StrictBool

from lstmfit.errors import InputError, one_line
from lstmfit.sampling.chainfiles import write_weighted
from lstmfit.sampling.checkpointed_run import CheckpointedRun
from lstmfit.sampling.input_checks import MAX_FRUITLESS_DRAWS, raise_infinite_likelihood, raise_no_finite_likelihood
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.settings import Fraction, Points, SamplerSettings
from lstmfit.sampling.state import ROOT
from lstmfit.schema import Count, Seed
from lstmfit.workers import check_jobs, death_as, worker_pool

INSTALL_LINE = 'pip install "lstmfit[nautilus]"'
BATCH = 100
"""Points per batch, nautilus' default; rounded up to a multiple of the number of workers."""
TURN_S = 1.0
"""Time that nautilus runs before progress is reported and, when due, a checkpoint is written."""
NEGLIGIBLE = 1e-12
"""Points whose weight relative to the largest is below this are dropped from the chain: most of the exploration."""


class NautilusSettings(SamplerSettings):
    """Settings of nautilus.

    Parameters
    ----------
    n_live : int
        Number of live points used to construct each bound, at least 100.
    n_eff : int
        Effective sample size at which the run ends; the error of ln Z is 1 / sqrt(n_eff).
    f_live : float
        Fraction of the evidence in the live points at which exploration ends.
    discard_exploration : bool
        Discard the points of the exploration phase. nautilus keeps them by default, which saves calls but puts ln Z
        off by up to six quoted errors (docs/sampling.md).
    seed : int
        Random seed.
    """

    n_live: Annotated[Points, Field(ge=100)] = 2000
    n_eff: Count = 10_000
    f_live: Fraction = 0.01
    discard_exploration: StrictBool = True
    seed: Seed = 0


def load_nautilus():
    """Import the package `nautilus`.

    Raises
    ------
    InputError
        nautilus is not installed.
    """
    try:
        import nautilus
    except ImportError as error:
        raise InputError(
            f"nautilus is not installed ({error}); to fix this: {INSTALL_LINE}, or use sampler: {{polychord: {{}}}}"
        ) from None
    return nautilus


def check_problem(problem) -> None:
    """Check that nautilus can sample a problem.

    Raises
    ------
    InputError
        nautilus is not installed, or fewer than two parameters are sampled.
    """
    load_nautilus()
    if len(problem.names) < 2:
        raise InputError(
            f"nautilus needs at least two sampled parameters, but got {len(problem.names)}; "
            "free another parameter or use sampler: {polychord: {}}"
        )


def run_nautilus(
    problem,
    folder,
    root: str,
    settings: NautilusSettings,
    *,
    workers: "Workers | None" = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Run nautilus in this process, optionally with the help of `workers`.

    Parameters
    ----------
    problem : lstmfit.problem.Problem
        The problem to sample.
    folder : str or pathlib.Path
        Output folder; created if missing.
    root : str
        Prefix of the file names. ``ROOT.txt`` (GetDist: weight, -ln L, parameters, derived parameters) and
        ``ROOT_equal_weights.txt`` are written at the end, the checkpoint ``ROOT.nautilus.h5`` during the run.
    settings : NautilusSettings
        Settings of the run.
    workers : Workers, optional
        Processes that train the networks and, if the likelihood is slow, evaluate it. A run is reproducible for the
        same seed and the same number of workers.
    resume : bool
        Resume from the checkpoint if there is one; otherwise start over. A resumed run gives the same result as an
        uninterrupted one.
    progress : callable, optional
        Called about once a second.

    Returns
    -------
    Result
        `n_dead` is the number of points in the chain.

    Raises
    ------
    InputError
        The folder is not writable or contains a different run, or the likelihood is infinite somewhere or zero
        everywhere in the prior.
    """
    check_problem(problem)
    return _NautilusRun(problem, folder, root, settings, workers).run(resume=resume, progress=progress)


class _NautilusRun(CheckpointedRun):
    """One run: nautilus runs for a second at a time, with the bookkeeping in between."""

    # Written and read by `nautilus.Sampler`.
    CHECKPOINT = ".nautilus.h5"
    CHAIN = ".txt"

    def __init__(self, problem, folder, root, settings, workers):
        super().__init__(problem, folder, root, settings)
        self.workers = workers
        self.n_workers = 1 if workers is None else workers.size
        slow = workers is not None and workers.payload is not None
        self._evaluate = workers.loglikelihood_batch if slow else problem.loglikelihood_batch

    def likelihood(self, theta):
        """Ln L (n,), -inf where L is zero, followed by one array per derived parameter: nautilus' blobs."""
        values, derived = self._evaluate(theta, return_derived=True)
        if np.isposinf(values).any():
            raise_infinite_likelihood(self.problem.names, theta[np.isposinf(values).argmax()])
        nan = np.isnan(values)
        self.n_nan += int(nan.sum())
        values = np.where(nan, -np.inf, values)
        self.n_good += int(np.isfinite(values).sum())
        self.n_evaluated += len(values)
        if not self.n_good and self.n_evaluated >= MAX_FRUITLESS_DRAWS:
            raise_no_finite_likelihood(self.n_evaluated, self.n_nan)
        return values, *derived.T

    def sample(self) -> dict:
        """See `CheckpointedRun.sample`."""
        nautilus = load_nautilus()
        self.n_nan, self.n_evaluated, self.n_good = self.state["n_nan"], 0, 0
        exists = self.checkpoint.is_file()
        batch = -(-BATCH // self.n_workers) * self.n_workers
        try:
            self.sampler = nautilus.Sampler(
                self.problem.prior_transform,
                self.likelihood,
                len(self.problem.names),
                n_live=self.settings.n_live,
                n_batch=batch,
                vectorized=True,
                pool=(None, self.workers),
                seed=self.settings.seed,
                filepath=self.checkpoint if exists else None,
            )
        except Exception as error:
            # A damaged checkpoint can make nautilus raise anything.
            if not exists:
                raise
            raise InputError(
                f"{self.checkpoint} cannot be read ({one_line(error)}); start over with --force"
            ) from error
        # nautilus would write into the existing file; being killed while it does so would leave a damaged one.
        self.sampler.filepath = None
        self.n_good = int(np.isfinite(self.sampler.log_z or -np.inf))
        wanted = {"f_live": self.settings.f_live, "n_eff": self.settings.n_eff}
        wanted["discard_exploration"] = self.settings.discard_exploration
        while not self.sampler.run(timeout=TURN_S, **wanted):
            self.tick()
        return self._finish(nautilus.__version__, str(Path(nautilus.__file__).parent))

    def save(self) -> dict:
        """See `CheckpointedRun.save`."""
        # nautilus requires the suffix .h5.
        part = self.checkpoint.with_name(f".{self.root}.part.h5")
        try:
            self.sampler.write(part, overwrite=True)
            part.replace(self.checkpoint)
        finally:
            part.unlink(missing_ok=True)
        return {"n_like": int(self.sampler.n_like), "n_nan": self.n_nan}

    def progress(self) -> Progress:
        """See `CheckpointedRun.progress`."""
        sampler = self.sampler
        if sampler.explored:
            stage = f"sampling, {sampler.n_eff:,.0f} of {self.settings.n_eff:,} effective"
        else:
            stage = f"exploring, {len(sampler.bounds)} bounds, {100 * sampler.f_live:.3g} % of the evidence live"
        n_eff = sampler.n_eff
        log_z = sampler.log_z
        return Progress(
            n_dead=int(sampler.shell_n.sum()),
            n_like=int(sampler.n_like),
            logZ=math.nan if log_z is None or not np.isfinite(log_z) else float(log_z),
            logZ_err=1.0 / math.sqrt(n_eff) if n_eff > 0 else math.nan,
            elapsed=self.wall(),
            stage=stage,
        )

    def _finish(self, version, path) -> dict:
        """Write the chain and return the figures of the run."""
        points, log_w, log_l, derived = self._posterior()
        weights = np.exp(log_w - log_w.max())
        keep = weights > NEGLIGIBLE
        rows = np.column_stack([weights, -log_l, points, derived])[keep]
        if len(rows) < 2:
            raise InputError(
                "nautilus found fewer than two points with non-negligible weight; check the data and the prior ranges"
            )
        write_weighted(self.folder, self.root, rows, self.settings.seed)
        return {
            "n_like": int(self.sampler.n_like),
            "n_nan": self.n_nan,
            "n_dead": len(rows),
            "logZ": float(self.sampler.log_z),
            # For an importance sampling estimate, Var(Z) / Z^2 = 1 / n_eff.
            "logZ_err": 1.0 / math.sqrt(self.sampler.n_eff),
            "n_eff": float(self.sampler.n_eff),
            # The integral covers the whole prior, including points of zero likelihood: no correction is needed.
            "prior_fraction": None,
            "version": version,
            "library": path,
            "ranks": self.n_workers,
        }

    def _posterior(self):
        """Points (n, n_params), log weights (n,), ln L (n,), derived (n, n_derived)."""
        points, log_w, log_l, blobs = self.sampler.posterior(return_blobs=True)
        if blobs.dtype.names:
            blobs = np.column_stack([blobs[name] for name in blobs.dtype.names])
        return points, log_w, log_l, blobs.reshape(len(points), -1)


class Workers:
    """A pool with the `map` and `size` that nautilus expects, which can also evaluate likelihoods.

    Parameters
    ----------
    pool : concurrent.futures.Executor
        Pool of processes or MPI ranks.
    size : int
        Number of workers.
    payload : bytes, optional
        Pickled function without arguments that returns the problem. If given, the workers evaluate the likelihood.
    """

    def __init__(self, pool, size: int, payload: bytes | None = None):
        self.pool, self.size, self.payload = pool, size, payload

    def map(self, function, items):
        """Like the built-in `map`."""
        return self.pool.map(function, items)

    def loglikelihood_batch(self, theta: np.ndarray, return_derived: bool = True):
        """Like `lstmfit.problem.Problem.loglikelihood_batch`; each point goes to the next free worker."""
        results = self.pool.map(functools.partial(_evaluate, self.payload), theta[:, None, :])
        values, derived = map(np.concatenate, zip(*results))
        return (values, derived) if return_derived else values


_problems: dict[bytes, object] = {}


def _evaluate(payload, theta):
    """Evaluate points in a worker, which builds the problem at the first call."""
    if payload not in _problems:
        _problems.clear()
        _problems[payload] = pickle.loads(payload)()
    return _problems[payload].loglikelihood_batch(theta, return_derived=True)


class Nautilus:
    """nautilus: one process samples; others train the networks and, if the likelihood is slow, evaluate it."""

    label = "nautilus"
    Settings = NautilusSettings

    def __init__(self, settings: NautilusSettings):
        self.settings = settings

    def check(self, problem, comm=None) -> None:
        """See `lstmfit.sampling.samplers.Sampler`."""
        check_problem(problem)

    def run(self, make_problem, folder, *, comm=None, jobs=None, resume=False, progress=None) -> Result | None:
        """See `lstmfit.sampling.samplers.Sampler`."""
        options = {"resume": resume, "progress": progress}
        jobs = check_jobs(jobs)
        if comm is None and jobs == 1:
            return run_nautilus(make_problem(), folder, ROOT, self.settings, **options)
        with death_as(RuntimeError, "a worker process"), worker_pool(jobs) as (pool, n_workers):
            if pool is None:
                return None
            problem = make_problem()
            workers = Workers(pool, n_workers, pickle.dumps(make_problem) if problem.signal.costly else None)
            return run_nautilus(problem, folder, ROOT, self.settings, workers=workers, **options)

    def run_here(self, problem, folder, *, resume=False) -> Result:
        """See `lstmfit.sampling.samplers.Sampler`."""
        return run_nautilus(problem, folder, ROOT, self.settings, resume=resume)

    def calls(self, n_slow: int) -> None:
        """See `lstmfit.sampling.samplers.Sampler`."""
        return None
