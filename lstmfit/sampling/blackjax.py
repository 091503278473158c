"""BlackJAX's nested slice sampler (Yallup, Kroupa & Handley 2026, arXiv:2601.23252) with the emulator in JAX.

Everything from the unit cube to ln L is one compiled function that is evaluated for many points at once, on a CPU or a
GPU. Birth contours are recorded, so the evidence is computed by anesthetic, as for PolyChord.
"""

import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import model_validator

from lstmfit.emulator.emulator import Emulator
from lstmfit.emulator.jax_engine import import_jax, make_forward
from lstmfit.errors import InputError, one_line
from lstmfit.files import replacing
from lstmfit.likelihoods.jax_likelihood import make_loglikelihood
from lstmfit.priors.jax_prior import make_transform
from lstmfit.sampling.chainfiles import LOGZERO, write_nested, write_posterior
from lstmfit.sampling.checkpointed_run import CheckpointedRun
from lstmfit.sampling.countdown import Countdown
from lstmfit.sampling.input_checks import MAX_FRUITLESS_DRAWS, raise_infinite_likelihood, raise_no_finite_likelihood
from lstmfit.sampling.result import Progress, Result
from lstmfit.sampling.settings import Fraction, Points, SamplerSettings, TimesD
from lstmfit.sampling.state import ROOT
from lstmfit.schema import Seed

INSTALL_LINE = 'pip install "lstmfit[blackjax]"'
OTHERS = "use another sampler: polychord, nautilus"


class BlackjaxSettings(SamplerSettings):
    """Settings of BlackJAX's nested slice sampler.

    Parameters
    ----------
    n_live : int or str
        Live points; ``25d`` is 25 times the number of sampled parameters.
    num_delete : int
        Number of points replaced per step, as one batch. A tenth of the live points keeps the loss of information
        small.
    num_inner_steps : int or str
        Slice-sampling steps per new point.
    precision_criterion : float
        The run ends when the live points contain this fraction of the evidence.
    seed : int
        Random seed.
    """

    n_live: TimesD = 500
    num_delete: Points = 50
    num_inner_steps: TimesD = "5d"
    precision_criterion: Fraction = 1e-3
    seed: Seed = 0

    @model_validator(mode="after")
    def _half_stay(self):
        if isinstance(self.n_live, int) and 2 * self.num_delete > self.n_live:
            raise ValueError(
                f"num_delete is {self.num_delete}, more than half of n_live {self.n_live}; give at most half, because "
                "new points start from the remaining ones"
            )
        return self


def load_blackjax():
    """Import the package `blackjax`.

    Raises
    ------
    InputError
        BlackJAX is not installed, or its version has no nested slice sampler.
    """
    try:
        import blackjax
    except ImportError as error:
        raise InputError(f"BlackJAX is not installed ({error}); to fix this: {INSTALL_LINE}, or {OTHERS}") from None
    if not hasattr(blackjax, "nss"):
        raise InputError(
            f"BlackJAX {blackjax.__version__} has no nested slice sampler; to fix this: {INSTALL_LINE} --upgrade"
        )
    return blackjax


def make_target(problem):
    """Write a problem as one function of the unit cube for `jax.jit`.

    Parameters
    ----------
    problem : lstmfit.problem.Problem
        A problem whose signal is an emulator and whose only likelihood is that of the spectrum.

    Returns
    -------
    callable
        cube (n_params,) -> ln L; -inf outside the cube and where ln L is NaN.

    Raises
    ------
    InputError
        JAX or BlackJAX is not installed, or part of the problem is not available in JAX; the message names that part
        and the samplers that support it.
    """
    load_blackjax()
    jax = import_jax()
    jnp, emulator, space = jax.numpy, problem.signal.emulator, problem.space
    if emulator is None:
        raise InputError(f"blackjax needs an emulator, but the signal is {problem.signal.name}; {OTHERS}")
    if not isinstance(emulator, Emulator):
        raise InputError(f"blackjax needs an LSTM of lstmfit, but {emulator.name} is {emulator.network}; {OTHERS}")
    others = [name for name in problem.likelihoods if name not in problem.spectra]
    if others:
        raise InputError(f"blackjax only supports the likelihood global_signal, not {', '.join(others)}; {OTHERS}")
    if space.expressions:
        raise InputError(
            f"blackjax does not support parameters computed from others ({', '.join(space.expressions)}); {OTHERS}"
        )
    transform = make_transform(problem.prior)
    forward = make_forward(emulator.architecture, emulator.scaling, emulator.used_weights)
    index = {name: i for i, name in enumerate(space.names)}
    constant = np.zeros(len(index))
    for name, value in space.fixed.items():
        constant[index[name]] = value
    sampled = np.array([index[name] for name in problem.names])
    parts = [
        (make_loglikelihood(part), np.array([index[name] for name in part.names], dtype=int))
        for part in problem.likelihoods.values()
    ]
    n_signal, n_channels = len(problem.signal.parameters), emulator.architecture.n_channels

    def target(cube):
        full = jnp.asarray(constant).at[sampled].set(transform(cube))
        signal = forward(full[:n_signal])[:n_channels].astype(cube.dtype)
        value = sum(loglikelihood(signal, full[own]) for loglikelihood, own in parts)
        good = jnp.all((cube > 0.0) & (cube < 1.0)) & ~jnp.isnan(value)
        return jnp.where(good, value, -jnp.inf)

    return target


def check_problem(problem, settings: BlackjaxSettings) -> None:
    """Check that BlackJAX can sample a problem with these settings; see `make_target` (InputError)."""
    make_target(problem)
    least = 2 * (len(problem.names) + 1)
    if settings.n_live < least:
        raise InputError(
            f"blackjax: n_live is {settings.n_live}, but {len(problem.names)} parameters need at least {least} live "
            "points to learn the shape of the posterior"
        )


def run_blackjax(
    problem,
    folder,
    root: str,
    settings: BlackjaxSettings,
    *,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Run BlackJAX's nested slice sampler in this process, on JAX's default device.

    Parameters
    ----------
    problem : lstmfit.problem.Problem
        The problem to sample.
    folder : str or pathlib.Path
        Output folder; created if missing.
    root : str
        Prefix of the file names. The chain files have the same format as PolyChord's.
    settings : BlackjaxSettings
        Settings of the run.
    resume : bool
        Resume from the checkpoint if there is one; otherwise start over. A resumed run gives the same result as an
        uninterrupted one.
    progress : callable, optional
        Called about once a second.

    Returns
    -------
    Result
        `n_like` counts the likelihood calls that the steps required. A batch also evaluates points while it waits for
        its slowest member; these are not counted.

    Raises
    ------
    InputError
        See `make_target`; also if the folder is not writable or contains a different run, or the likelihood is zero
        everywhere in the prior.
    """
    check_problem(problem, settings)
    return _BlackjaxRun(problem, folder, root, settings).run(resume=resume, progress=progress)


class _BlackjaxRun(CheckpointedRun):
    """One run: the compiled steps and the dead points of each."""

    CHECKPOINT = ".blackjax.npz"
    CHAIN = "_dead-birth.txt"

    def sample(self) -> dict:
        """See `CheckpointedRun.sample`."""
        # The network always uses float32; likelihood contours need more digits.
        with import_jax().enable_x64(True):
            self._compile()
            return self._sample()

    def _compile(self):
        """Set up the sampler for the problem, before the first step."""
        settings = self.settings
        self.jax = import_jax()
        self.blackjax = load_blackjax()
        self.target = make_target(self.problem)
        self.algorithm = self.blackjax.nss(
            logprior_fn=lambda cube: 0.0 * cube[0],
            loglikelihood_fn=self.target,
            num_inner_steps=settings.num_inner_steps,
            num_delete=settings.num_delete,
        )
        self.dead = []  # (n, n_params + 2): cube, ln L, birth
        self.steps, self.n_like, self.prior_fraction = 0, 0, None
        self.countdown = Countdown(settings.precision_criterion)

    def _sample(self) -> dict:
        live = self.live = self._start()
        step = self.jax.jit(self.algorithm.step)
        key = self.jax.random.key(self.settings.seed)
        goal = math.log(self.settings.precision_criterion)
        while not self._live_fraction(live) < goal:
            # The key depends only on the step number, so a resumed run continues with the same random numbers.
            live, info = step(self.jax.random.fold_in(key, self.steps), live)
            self.dead.append(_rows(info.particles))
            slices = info.update_info
            # Per slice: both ends, the steps out and the points tried.
            calls = 2 + np.asarray(slices.num_expansions) + np.asarray(slices.num_shrink)
            self.n_like, self.steps = self.n_like + int(calls.sum()), self.steps + 1
            self.live = live
            self.tick()
        return self._finish(live)

    def _start(self):
        """Initial live points: those of the checkpoint if there is one, otherwise draws from the prior."""
        positions = None if self.checkpoint.is_file() else self._draw()
        blank = np.random.default_rng(0).uniform(size=(self.settings.n_live, len(self.problem.names)))
        live = self.algorithm.init(self.jax.numpy.asarray(blank if positions is None else positions))
        if positions is not None:
            return live
        leaves, tree = self.jax.tree.flatten(live)
        try:
            with np.load(self.checkpoint, allow_pickle=False) as file:
                stored = [file[f"leaf_{i}"] for i in range(len(leaves))]
                if [(x.shape, x.dtype) for x in stored] != [(x.shape, x.dtype) for x in map(np.asarray, leaves)]:
                    raise ValueError("its arrays belong to a different run")
                self.dead = [file["dead"]]
                self.steps, self.n_like = int(file["steps"]), int(file["n_like"])
                self.prior_fraction = float(file["prior_fraction"])
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{self.checkpoint} cannot be read ({one_line(error)}); start over with --force"
            ) from error
        return self.jax.tree.unflatten(tree, [self.jax.numpy.asarray(x) for x in stored])

    def _draw(self):
        """Draw n_live points of non-zero likelihood, like PolyChord, and record the fraction of accepted draws."""
        rng, n = np.random.default_rng(self.settings.seed), self.settings.n_live
        evaluate = self.jax.jit(self.jax.vmap(self.target))
        good, drawn = np.empty((0, len(self.problem.names))), 0
        while len(good) < n:
            cubes = rng.uniform(size=(n, good.shape[1]))
            values = np.asarray(evaluate(cubes))
            if np.isposinf(values).any():
                worst = self.problem.prior_transform(cubes[np.isposinf(values).argmax()])
                raise_infinite_likelihood(self.problem.names, worst)
            finite = np.flatnonzero(np.isfinite(values))[: n - len(good)]
            # Draws after the last required point are not counted.
            drawn += len(cubes) if len(good) + len(finite) < n else int(finite[-1]) + 1
            good = np.concatenate([good, cubes[finite]])
            if not len(good) and drawn >= MAX_FRUITLESS_DRAWS:
                raise_no_finite_likelihood(drawn)
        self.n_like, self.prior_fraction = drawn, n / drawn
        return good

    @staticmethod
    def _live_fraction(live) -> float:
        """Ln of the ratio of the evidences of live and dead points."""
        logZ = float(live.integrator.logZ)
        return float(live.integrator.logZ_live) - logZ if np.isfinite(logZ) else math.inf

    def progress(self) -> Progress:
        """See `CheckpointedRun.progress`."""
        live = self.live
        logL = np.asarray(live.particles.loglikelihood)
        folds = -self.steps * math.log1p(-self.settings.num_delete / self.settings.n_live)
        self.countdown.update(folds, logL, self._live_fraction(live))
        return Progress(
            n_dead=self.steps * self.settings.num_delete,
            n_like=self.n_like,
            logZ=float(np.logaddexp(live.integrator.logZ, live.integrator.logZ_live)),
            logL_min=float(logL.min()),
            logL_max=float(logL.max()),
            elapsed=self.wall(),
            remaining=self.countdown.seconds(),
            climbing=self.countdown.climbing,
        )

    def save(self) -> dict:
        """See `CheckpointedRun.save`."""
        leaves = {f"leaf_{i}": np.asarray(x) for i, x in enumerate(self.jax.tree.leaves(self.live))}
        counts = {"steps": self.steps, "n_like": self.n_like, "prior_fraction": self.prior_fraction}
        self.dead = [np.concatenate(self.dead)]
        with replacing(self.checkpoint) as path, path.open("wb") as file:
            np.savez(file, dead=self.dead[0], **leaves, **counts)
        return {"n_like": self.n_like}

    def _finish(self, live) -> dict:
        """Write the chain files and return the figures of the run."""
        rows = _rows(live.particles)
        table = self._physical(np.concatenate([*self.dead, rows]))
        last = table[-len(rows) :]
        table = table[np.argsort(table[:, -2], kind="stable")]
        logZ, logZ_err = write_posterior(self.folder, self.root, table, self.settings.seed)
        write_nested(self.folder, self.root, table, last)
        return {
            "n_like": self.n_like,
            "n_nan": 0,
            "n_dead": len(table),
            "logZ": logZ,
            "logZ_err": logZ_err,
            "prior_fraction": self.prior_fraction,
            "version": self.blackjax.__version__,
            "library": f"{Path(self.blackjax.__file__).parent} on {self.jax.devices()[0].platform}",
            "ranks": 1,
        }

    def _physical(self, rows):
        """Convert rows from the unit cube to physical values, (n, n_params + n_derived + 2)."""
        theta = np.array([self.problem.prior_transform(cube) for cube in rows[:, :-2]])
        # Derived parameters are computed in NumPy, as for every other sampler.
        derived = self.problem.loglikelihood_batch(theta, return_derived=True)[1]
        return np.column_stack([theta, derived, rows[:, -2:]])


def _rows(particles) -> np.ndarray:
    """Unit cube, ln L and birth contour of particles, (n, n_params + 2)."""
    birth = np.asarray(particles.loglikelihood_birth)
    birth = np.where(np.isnan(birth), LOGZERO, birth)
    return np.column_stack([np.asarray(particles.position), np.asarray(particles.loglikelihood), birth])


class Blackjax:
    """BlackJAX's nested slice sampler: one process, in which JAX manages the threads or the GPU."""

    label = "BlackJAX"
    Settings = BlackjaxSettings

    def __init__(self, settings: BlackjaxSettings):
        self.settings = settings

    def check(self, problem, comm=None) -> None:
        """See `lstmfit.sampling.samplers.Sampler`."""
        if comm is not None:
            raise InputError(
                f"blackjax runs in one process, but there are {comm.Get_size()} MPI ranks; start it without mpirun, "
                "or use sampler: {polychord: {}} or {nautilus: {}}"
            )
        check_problem(problem, self.settings)

    def run(self, make_problem, folder, *, comm=None, jobs=None, resume=False, progress=None) -> Result:
        """See `lstmfit.sampling.samplers.Sampler`; `jobs` is ignored."""
        return run_blackjax(make_problem(), folder, ROOT, self.settings, resume=resume, progress=progress)

    def run_here(self, problem, folder, *, resume=False) -> Result:
        """See `lstmfit.sampling.samplers.Sampler`."""
        return run_blackjax(problem, folder, ROOT, self.settings, resume=resume)

    def calls(self, n_slow: int) -> None:
        """See `lstmfit.sampling.samplers.Sampler`."""
        return None
