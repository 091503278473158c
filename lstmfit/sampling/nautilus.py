"""nautilus: nested importance sampling with neural networks for bounds (Lange 2023, MNRAS 525, 3181).

A pure Python package that needs some ten times fewer likelihood calls than PolyChord and takes them in batches. Its
samples carry weights and no birth contours: evidence and effective size are its own.
"""

import functools
import logging
import math
import pickle
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, StrictBool

from lstmfit.errors import InputError, one_line
from lstmfit.sampling.chainfiles import write_weighted
from lstmfit.sampling.input_checks import MAX_FRUITLESS_DRAWS, refuse_fruitless, refuse_infinite
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.settings import Fraction, Points, SamplerSettings
from lstmfit.sampling.state import ROOT, prepare_folder, write_state
from lstmfit.schema import Count, Seed
from lstmfit.workers import check_jobs, death_as, worker_pool

INSTALL_LINE = 'pip install "lstmfit[nautilus]"'
BATCH = 100
"""Points at a time, as nautilus has it; rounded up to a multiple of the workers."""
TURN_S = 1.0
"""nautilus is left alone for so long; then progress is told and, now and then, a checkpoint written."""
CHECKPOINT_S = 10.0
CHECKPOINT_SHARE = 0.05
"""Largest share of the time that checkpoints may take; they grow along the run."""
NEGLIGIBLE = 1e-12
"""Weights below this, relative to the largest, are left out of the chain: most of what exploration met."""

logger = logging.getLogger(__name__)


class NautilusSettings(SamplerSettings):
    """Settings of nautilus.

    Parameters
    ----------
    n_live : int
        Live points that each bound is drawn around, at least 100.
    n_eff : int
        Effective sample size at which the run ends; the error of ln Z is 1 / sqrt(n_eff).
    f_live : float
        Fraction of the evidence in the live points at which exploration ends.
    discard_exploration : bool
        Leave the points of the exploration out. nautilus itself keeps them by default, takes fewer calls and is off by
        up to six of its quoted errors for it (docs/sampling.md).
    seed : int
        Seed.
    """

    n_live: Annotated[Points, Field(ge=100)] = 2000
    n_eff: Count = 10_000
    f_live: Fraction = 0.01
    discard_exploration: StrictBool = True
    seed: Seed = 0


def load_nautilus():
    """The package `nautilus`.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        import nautilus
    except ImportError as error:
        raise InputError(
            f"nautilus is not installed ({error}); to fix this: {INSTALL_LINE}, or use sampler: {{polychord: {{}}}}"
        ) from None
    return nautilus


def check_problem(problem) -> None:
    """Refuse what nautilus cannot do.

    Raises
    ------
    InputError
        It is not installed, or there is one parameter only.
    """
    load_nautilus()
    if len(problem.names) < 2:
        raise InputError(
            f"nautilus needs two or more sampled parameters, here is {len(problem.names)}; "
            "free another one or use sampler: {polychord: {}}"
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
    """Run nautilus in this process, with the help of others where there are `workers`.

    Parameters
    ----------
    problem : lstmfit.problem.Problem
        What is sampled.
    folder : str or pathlib.Path
        Output folder; made if missing.
    root : str
        First part of the files' names. ``ROOT.txt`` (GetDist: weight, -ln L, parameters, derived ones) and
        ``ROOT_equal_weights.txt`` are written at the end, ``ROOT.nautilus.h5`` on the way.
    settings : NautilusSettings
        What to do.
    workers : Workers, optional
        Processes that train its networks, and evaluate the likelihood where that is slow. With the same seed and the
        same number of them a run repeats itself.
    resume : bool
        Resume from the checkpoint if there is one; otherwise start over. A resumed run ends as if it had not been
        interrupted after that checkpoint.
    progress : callable, optional
        Called about once a second.

    Returns
    -------
    Result
        `n_dead` counts the points of the chain.

    Raises
    ------
    InputError
        The folder cannot be written or holds another run, the log-likelihood is +inf or zero all over the prior.
    """
    check_problem(problem)
    folder = Path(folder)
    fresh = {"n_nan": 0, "n_like": 0, "wall_s": 0.0}
    state = prepare_folder(problem, folder, root, settings, resume=resume, made=f"{root}.txt", fresh=fresh)
    if state.get("finished"):
        logger.info("%s is finished; nothing is left to do", folder / root)
        return Result.of(state)
    return _Run(problem, folder, root, settings, state, workers).execute(progress)


def checkpoint_file(folder, root) -> Path:
    """Where nautilus' own checkpoint lies; `nautilus.Sampler` reads it."""
    return Path(folder) / f"{root}.nautilus.h5"


class _Run:
    """One run: nautilus in turns of a second, the bookkeeping in between."""

    def __init__(self, problem, folder, root, settings, state, workers):
        self.problem, self.folder, self.root, self.settings = problem, folder, root, settings
        self.state, self.workers = state, workers
        self.n_workers = 1 if workers is None else workers.size
        helped = workers is not None and workers.payload is not None
        self._evaluate = workers.loglikelihoods if helped else problem.loglikelihoods
        self.n_nan, self.n_evaluated, self.n_good = state["n_nan"], 0, 0

    def likelihood(self, theta):
        """Ln L (n,), -inf where it is zero, and the derived parameters one by one, as nautilus wants its blobs."""
        values, derived = self._evaluate(theta)
        if np.isposinf(values).any():
            refuse_infinite(self.problem.names, theta[np.isposinf(values).argmax()])
        nan = np.isnan(values)
        self.n_nan += int(nan.sum())
        values = np.where(nan, -np.inf, values)
        self.n_good += int(np.isfinite(values).sum())
        self.n_evaluated += len(values)
        if not self.n_good and self.n_evaluated >= MAX_FRUITLESS_DRAWS:
            refuse_fruitless(self.n_evaluated, self.n_nan)
        return values, *derived.T

    def prior(self, cubes):
        """Physical parameters (n, n_params) from the unit cube, or (n_params,) from one point of it."""
        if cubes.ndim == 1:
            return self.problem.prior_transform(cubes)
        return np.array([self.problem.prior_transform(cube) for cube in cubes])

    def execute(self, progress) -> Result:
        nautilus = load_nautilus()
        self.began = time.monotonic()
        checkpoint = checkpoint_file(self.folder, self.root)
        batch = -(-BATCH // self.n_workers) * self.n_workers
        try:
            self.sampler = nautilus.Sampler(
                self.prior,
                self.likelihood,
                len(self.problem.names),
                n_live=self.settings.n_live,
                n_batch=batch,
                vectorized=True,
                pool=(None, self.workers),
                seed=self.settings.seed,
                filepath=checkpoint if checkpoint.is_file() else None,
            )
        except Exception as error:
            # Whatever nautilus makes of a damaged file of its own.
            if not checkpoint.is_file():
                raise
            raise InputError(f"{checkpoint} cannot be read ({one_line(error)}); start over with --force") from error
        # nautilus would write into the existing file, and a kill at the wrong moment would leave it damaged.
        self.sampler.filepath = None
        self.n_good = int(np.isfinite(self.sampler.log_z or -np.inf))
        wanted = {"f_live": self.settings.f_live, "n_eff": self.settings.n_eff}
        wanted["discard_exploration"] = self.settings.discard_exploration
        saved, cost = time.monotonic(), 0.0
        while not self.sampler.run(timeout=TURN_S, **wanted):
            if progress:
                progress(self._progress())
            begun = time.monotonic()
            if begun - saved > max(CHECKPOINT_S, cost / CHECKPOINT_SHARE):
                self._save()
                saved = time.monotonic()
                cost = saved - begun
        return self._finish(nautilus.__version__, str(Path(nautilus.__file__).parent))

    def _wall(self):
        return self.state["wall_s"] + time.monotonic() - self.began

    def _save(self):
        """Write nautilus' checkpoint and the state beside it, each whole or not at all."""
        checkpoint = checkpoint_file(self.folder, self.root)
        # nautilus insists on the ending.
        part = checkpoint.with_name(f".{self.root}.part.h5")
        try:
            self.sampler.write(part, overwrite=True)
            part.replace(checkpoint)
        finally:
            part.unlink(missing_ok=True)
        figures = {"n_like": int(self.sampler.n_like), "n_nan": self.n_nan, "wall_s": self._wall()}
        write_state(self.folder, self.root, self.state | figures)

    def _progress(self) -> Progress:
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
            elapsed=self._wall(),
            stage=stage,
        )

    def _finish(self, version, path) -> Result:
        points, log_w, log_l, derived = self._posterior()
        weights = np.exp(log_w - log_w.max())
        keep = weights > NEGLIGIBLE
        rows = np.column_stack([weights, -log_l, points, derived])[keep]
        if len(rows) < 2:
            raise InputError("nautilus found no more than one point of weight; check data and prior ranges")
        figures = {
            "n_like": int(self.sampler.n_like),
            "n_nan": self.n_nan,
            "n_dead": len(rows),
            "wall_s": self._wall(),
            "logZ": float(self.sampler.log_z),
            # Of an importance sampling estimate: Var(Z) / Z^2 = 1 / n_eff.
            "logZ_err": 1.0 / math.sqrt(self.sampler.n_eff),
            "n_eff": float(self.sampler.n_eff),
            # It integrates over the whole prior, zero likelihoods included: nothing is to be put back.
            "prior_fraction": None,
            "version": version,
            "library": path,
            "finished": True,
            "ranks": self.n_workers,
        }
        write_weighted(self.folder, self.root, rows, self.settings.seed)
        state = self.state | figures
        write_state(self.folder, self.root, state)
        with suppress(OSError):
            checkpoint_file(self.folder, self.root).unlink(missing_ok=True)
        if self.n_nan:
            logger.warning("the log-likelihood was NaN in %d of %d calls", self.n_nan, figures["n_like"])
        return Result.of(state)

    def _posterior(self):
        """Points (n, n_params), log weights (n,), ln L (n,), derived (n, n_derived)."""
        points, log_w, log_l, blobs = self.sampler.posterior(return_blobs=True)
        if blobs.dtype.names:
            blobs = np.column_stack([blobs[name] for name in blobs.dtype.names])
        return points, log_w, log_l, blobs.reshape(len(points), -1)


class Workers:
    """A pool as nautilus wants it, with a `size`, that also evaluates likelihoods.

    Parameters
    ----------
    pool : concurrent.futures.Executor
        Of processes or MPI ranks.
    size : int
        How many.
    payload : bytes, optional
        Pickled function without arguments that returns the problem, where the workers shall evaluate it.
    """

    def __init__(self, pool, size: int, payload: bytes | None = None):
        self.pool, self.size, self.payload = pool, size, payload

    def map(self, function, items):
        """As the built-in one."""
        return self.pool.map(function, items)

    def loglikelihoods(self, theta: np.ndarray):
        """As `lstmfit.problem.Problem.loglikelihoods`, one point at a time to whoever is free."""
        results = self.pool.map(functools.partial(_evaluate, self.payload), theta[:, None, :])
        values, derived = zip(*results)
        return np.concatenate(values), np.concatenate(derived)


_problems: dict[bytes, object] = {}


def _evaluate(payload, theta):
    """Evaluate points in a worker, which builds the problem when the first ones come."""
    if payload not in _problems:
        _problems.clear()
        _problems[payload] = pickle.loads(payload)()
    return _problems[payload].loglikelihoods(theta)


class Nautilus:
    """nautilus: one process that samples, others that train its networks and, where it is slow, the likelihood."""

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
