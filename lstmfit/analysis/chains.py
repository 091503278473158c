"""Read the chains of a finished fit with anesthetic."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmfit.analysis.records import Summary, read_figures
from lstmfit.errors import InputError, listed, one_line
from lstmfit.files import AnyPath
from lstmfit.problem import Problem
from lstmfit.run_folder import check_seal, load_problem
from lstmfit.sampling.state import read_state

if TYPE_CHECKING:
    from anesthetic import Samples

SAME_LOGL = 3e-5
"""Relative difference of ln L allowed between engines and machines; BlackJAX's network differs by 2e-6."""


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder.
    samples : anesthetic.NestedSamples or anesthetic.MCMCSamples
        Physical parameters as written by the sampler; see `read_samples`.
    problem : Problem
        Prior, likelihood, signal and data of the run.
    """

    folder: Path
    samples: Any
    problem: Problem

    def __repr__(self) -> str:
        free = listed(self.problem.names, 8)
        return f"<Run {self.folder}: {len(self.samples):,} samples of {free}; {self._evidence()}>"

    def _evidence(self) -> str:
        figures = self.summary
        return f"logZ {figures['logZ']:.2f} ± {figures['logZ_err']:.2f}"

    @property
    def summary(self) -> dict:
        """Content of ``summary.json``: evidence and parameter table."""
        return read_summary(self.folder)

    def signal(self, n: int = 500, seed: int = 0) -> np.ndarray:
        """Signals drawn from the posterior.

        Parameters
        ----------
        n : int
            Number of signals.
        seed : int
            Seed of the draws.

        Returns
        -------
        numpy.ndarray
            (n, n_channels) mK at ``problem.signal.redshifts``.
        """
        theta = equal_weight(self, n, np.random.default_rng(seed))
        return np.array([self.problem.signal_at(t) for t in theta])

    @property
    def log10(self) -> dict[str, bool]:
        """Whether a sampled parameter's natural space is log10."""
        return {name: d.log for name, d in self.problem.prior.distributions.items()}

    def natural(self) -> "Samples":
        """Samples in the space of the prior: log10 of log-uniform parameters, with matching labels.

        Returns
        -------
        anesthetic.NestedSamples or anesthetic.MCMCSamples
            A copy.
        """
        samples = self.samples.copy()
        for name, log in self.log10.items():
            label = self.problem.prior.latex[name]
            if log:
                samples[name] = np.log10(samples[name])
                label = f"\\log_{{10}}\\,{label}"
            samples.set_label(name, f"${label}$")
        return samples

    def truth(self) -> dict[str, float]:
        """True values of the sampled parameters in the space of the prior; empty for real data."""
        return {
            name: float(np.log10(value)) if self.log10[name] else value
            for name, value in self.problem.truth.items()
            if name in self.log10
        }


def read_samples(root: Path) -> "Samples":
    """Read any chain that anesthetic supports, with the evidence of our own runs, or a result of bilby.

    Parameters
    ----------
    root : path
        Prefix of the chain files.

    Returns
    -------
    anesthetic.NestedSamples or anesthetic.MCMCSamples
        NestedSamples if birth contours are known (PolyChord, BlackJAX). For our own runs, their
        ``attrs["prior_fraction"]`` is the fraction of the prior that their evidence refers to, and
        ``attrs["mean_inflation"]`` the factors of `lstmfit.sampling.mean_errors` by name. Either is None if it is not
        known. MCMCSamples for weighted
        samples (nautilus), with ``attrs["evidence"]`` = (ln Z, its error) if the sampler computed it.
    """
    from anesthetic import read_chains

    root = Path(root)
    if root.name.endswith("_result.json"):
        return read_bilby(root)
    samples = read_chains(str(root))
    state = read_state(root.parent, root.name)
    if hasattr(samples, "logZ"):
        for fact in ("prior_fraction", "mean_inflation"):
            samples.attrs[fact] = state.get(fact)
    elif state.get("logZ") is not None:
        samples.attrs["evidence"] = (state["logZ"], state["logZ_err"])
    return samples


def read_bilby(path: Path) -> "Samples":
    """Read a result of bilby: equally weighted samples, with ``attrs["evidence"]`` if the sampler computed it.

    Raises
    ------
    InputError
        The file is not a result of bilby.
    """
    from anesthetic import MCMCSamples

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        posterior = {name: np.asarray(values) for name, values in content["posterior"]["content"].items()}
        # Only sampled parameters and the likelihood; bilby adds columns of its own, some of which are not numbers.
        names = content["search_parameter_keys"]
        samples = MCMCSamples(
            data=np.column_stack([posterior[name] for name in names]).astype(float),
            columns=names,
            logL=posterior["log_likelihood"].astype(float),
            labels=[str(label).strip("$") for label in content["parameter_labels"]],
        )
        evidence = float(content["log_evidence"]), float(content["log_evidence_err"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = one_line(f"{type(error).__name__}: {error}", 120)
        raise InputError(f"{path} is not a result of bilby ({what}); give the file that bilby wrote") from None
    if np.isfinite(evidence).all():
        samples.attrs["evidence"] = evidence
    return samples


def evidence(samples: Any, n_draws: int, seed: int = 0) -> tuple[float | None, float | None]:
    """Ln Z of a chain and its error; (None, None) if the chain has none.

    Parameters
    ----------
    samples : anesthetic.Samples
        Samples as returned by `read_samples`.
    n_draws : int
        Number of draws of the prior volumes, used if birth contours are known.
    seed : int
        Seed of the draws.
    """
    if not hasattr(samples, "logZ"):
        return samples.attrs.get("evidence", (None, None))
    from anesthetic.utils import temporary_seed

    # anesthetic draws the prior volumes from NumPy's global state, which this restores afterwards.
    with temporary_seed(seed):
        draws = np.asarray(samples.logZ(n_draws), dtype=float)
    # PolyChord discards the part of the prior where the likelihood is zero.
    return float(draws.mean() + np.log(samples.attrs.get("prior_fraction") or 1.0)), float(draws.std())


def read_run(folder: AnyPath, trust: bool = False, *, problem: Problem | None = None) -> Run:
    """Read a finished run from its output folder.

    Parameters
    ----------
    folder : path
        Output folder of a finished fit.
    trust : bool
        Import likelihoods and simulators given by dotted path in the run file.
    problem : Problem, optional
        The problem of the run, if it has already been built.

    Raises
    ------
    InputError
        There are no finished chains, they are damaged, or the run file or the data do not match the chains.
    """
    folder = Path(folder)
    problem = load_problem(folder, trust) if problem is None else problem
    check_seal(folder)
    if not any((folder / f"chain{ending}").is_file() for ending in ("_dead-birth.txt", ".txt")):
        raise InputError(
            f"{folder} has no finished chains; run `lstmfit fit`, with --resume if the fit was interrupted"
        )
    try:
        samples = read_samples(folder / "chain")
        lost = [name for name in (*problem.names, "logL") if name not in samples]
        if lost:
            raise ValueError(f"no column {', '.join(lost)}")
    except (OSError, ValueError, IndexError, KeyError) as error:
        what = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{folder}: the chain files are damaged ({what}); repeat the fit with --force") from None
    run = Run(folder, samples, problem)
    _check_unchanged(run)
    return run


def read_summary(folder: AnyPath) -> dict:
    """Read the ``summary.json`` of a finished run.

    Raises
    ------
    InputError
        The file does not exist, because the run has not finished, or is damaged.
    """
    path = Path(folder) / "summary.json"
    if not path.is_file():
        raise InputError(f"{folder} has no summary.json: the run has not finished; resume it with lstmfit fit --resume")
    return read_figures(path, Summary, "remove it and run lstmfit fit --resume")


def _check_unchanged(run: Run) -> None:
    """Check that the problem gives the likelihood stored in the chain, at one point."""
    row = run.samples.iloc[int(np.argmax(run.samples.get_weights()))]
    then, now = float(row["logL"]), run.problem.loglikelihood(row[list(run.problem.names)].to_numpy(float))[0]
    if not abs(now - then) < SAME_LOGL * (1.0 + abs(then)):
        raise InputError(
            f"{run.folder}: ln L of a point of the chain is {now:.6g} but was {then:.6g} in the fit, so run.yaml or "
            "data.csv has changed since; restore them, or repeat the fit with --force"
        )


def equal_weight(run: Run, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `n` sets of physical parameters (n, n_params) from the posterior, with equal weights."""
    weights = run.samples.get_weights()
    rows = rng.choice(len(weights), size=n, p=weights / weights.sum())
    return run.samples[list(run.problem.names)].to_numpy()[rows]
