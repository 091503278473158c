"""Likelihood and priors of a run file for bilby."""

from typing import Any

import bilby
import numpy as np
from bilby.core.prior import Gaussian, LogUniform, Prior, PriorDict, TruncatedGaussian, Uniform

from lstmfit import config as run_file
from lstmfit.errors import InputError
from lstmfit.files import AnyPath
from lstmfit.priors.distributions import make_distribution
from lstmfit.problem import Problem, build


def likelihood_and_priors(run: AnyPath | dict) -> "tuple[RunLikelihood, PriorDict]":
    """Likelihood and priors of a run file.

    Parameters
    ----------
    run : path, str or mapping
        See `lstmfit.config.load`.

    Returns
    -------
    likelihood : RunLikelihood
        A ``bilby.Likelihood``.
    priors : bilby.core.prior.PriorDict
        Priors of the sampled parameters.

    Raises
    ------
    InputError
        The run file is invalid, samples nothing, or sorts parameters, which bilby's priors cannot.

    Examples
    --------
    >>> likelihood, priors = likelihood_and_priors("mock_25mK")        # doctest: +SKIP
    >>> bilby.run_sampler(likelihood, priors, sampler="dynesty")       # doctest: +SKIP
    """
    problem = build(run_file.load(run))
    if not problem.names:
        raise InputError("the run file has no sampled parameter; give one of them a prior")
    if problem.prior.groups:
        members = ", ".join(problem.names[at] for at in problem.prior.groups[0])
        raise InputError(f"params: {members} are sorted, which bilby's priors cannot express; remove sorted")
    return RunLikelihood(problem), make_priors(problem)


class RunLikelihood(bilby.Likelihood):
    """Log-likelihood of a run file.

    Parameters
    ----------
    problem : lstmfit.problem.Problem
        The problem; it can be pickled for bilby's worker processes.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def log_likelihood(self, parameters: dict | None = None) -> float:
        """Ln L for the sampled parameters by name; -inf where the signal is not finite."""
        theta = np.array([parameters[name] for name in self.problem.names], dtype=np.float64)
        value = self.problem.loglikelihood(theta)[0]
        return value if np.isfinite(value) else -np.inf


class FromDistribution(Prior):
    """Prior that bilby does not have.

    Parameters
    ----------
    spec : dict
        ``prior:`` block of a run file.
    name, latex_label : str, optional
        As in bilby.
    """

    def __init__(self, spec: Any, name: str | None = None, latex_label: str | None = None) -> None:
        self._distribution = make_distribution(spec)
        low, high = self._distribution.support
        super().__init__(name=name, latex_label=latex_label, minimum=low, maximum=high)
        self.spec = spec

    def rescale(self, val: Any) -> Any:
        """Physical value at cumulative probability `val`."""
        return self._distribution.ppf(val)

    def ln_prob(self, val: Any) -> Any:
        """Natural logarithm of the density; -inf outside the support."""
        return self._distribution.logpdf(val)

    def prob(self, val: Any) -> Any:
        """Density."""
        return np.exp(self.ln_prob(val))


def make_priors(problem: Problem) -> PriorDict:
    """Priors of a problem, as those of bilby where it has them."""
    given, latex = problem.prior.distributions, problem.prior.latex
    return PriorDict({name: _prior(given[name].spec(), name, f"${latex[name]}$") for name in problem.names})


def _prior(spec: Any, name: str, label: str) -> Any:
    kind, given = spec["dist"], {key: value for key, value in spec.items() if key != "dist"}
    names = {"name": name, "latex_label": label}
    if kind in ("uniform", "loguniform") and set(given) == {"min", "max"}:
        return {"uniform": Uniform, "loguniform": LogUniform}[kind](given["min"], given["max"], **names)
    if kind == "norm":
        return Gaussian(given["loc"], given["scale"], **names)
    if kind == "truncnorm" and set(given) == {"loc", "scale", "min", "max"}:
        return TruncatedGaussian(given["loc"], given["scale"], given["min"], given["max"], **names)
    return FromDistribution(spec, **names)
