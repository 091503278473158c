"""Does the model fit the data, and do the priors leave the posterior its place? Asked after every fit."""

import numpy as np
from scipy.stats import chi2 as chi_square
from scipy.stats import norm

from lstmfit.analysis.chains import Run

UNLIKELY = 1e-4
"""Chance of so large a chi-square below which the model is said not to fit."""
CORRELATED = 1e-6
"""Chance of residuals so correlated, or of so small a chi-square, below which they are said not to be the noise."""
END, PILED = 0.05, 0.25
"""A posterior piles up where a quarter of it lies in the last twentieth of its prior: five times what the prior has."""


def goodness(run: Run) -> dict:
    """How well the best sample fits, and which parameters sit at the end of their prior.

    Parameters
    ----------
    run : Run
        A finished run.

    Returns
    -------
    dict
        ``chi2`` of the best sample by the noise alone, without the emulator's error, ``dof`` and ``p_value``, the
        chance of a larger one; ``residual_correlation`` of neighbouring channels, whitened; ``fitted_noise_mK``, the
        best sample's sigma or floor where it is free, else None; ``at_prior_end``: ``lower`` or ``upper`` by name of
        the parameters that pile up there. dof and p_value are None where there are no more channels than parameters.

    Notes
    -----
    Student-t residuals are brought to normal ones (`GlobalSignal.standard_residuals`), so that their squares add up to
    chi-square too. Where the noise is free, chi-square is near its expectation whatever the model is, and the
    correlation tells.
    """
    problem, likelihood = run.problem, run.problem.likelihood
    best = run.samples.iloc[int(np.argmax(run.samples["logL"].to_numpy()))]
    theta = best[list(problem.names)].to_numpy(dtype=float)
    values = problem.values(theta)
    z = likelihood.standard_residuals(problem.signal_at(theta), values)
    chi2, dof = float(z @ z), len(z) - len(problem.names) - likelihood.n_marginalised
    noise_mk = likelihood.noise.at(values).sigma if likelihood.noise.sigma is None else None
    correlation = _neighbours(z)
    return {
        "chi2": chi2 if np.isfinite(chi2) else None,
        "dof": dof if dof > 0 else None,
        "p_value": float(chi_square.sf(chi2, dof)) if dof > 0 and np.isfinite(chi2) else None,
        "residual_correlation": correlation,
        "fitted_noise_mK": noise_mk,
        "at_prior_end": prior_ends(run),
    }


def _neighbours(z):
    if len(z) < 4 or not np.isfinite(z).all() or not np.std(z) > 0:
        return None
    return float(np.corrcoef(z[:-1], z[1:])[0, 1])


def prior_ends(run: Run, seed: int = 0) -> dict[str, str]:
    """Parameters of which a quarter of the posterior lies in the last twentieth of the prior, and at which end.

    Parameters
    ----------
    run : Run
        A finished run.
    seed : int
        Of the draws from the prior.

    Returns
    -------
    dict of str to str
        ``lower`` or ``upper`` by name. A prior without an end there has none to pile up at.
    """
    prior, weights = run.problem.prior, run.samples.get_weights()
    draws = prior.sample(20000, np.random.default_rng(seed))
    found = {}
    for i, name in enumerate(run.problem.names):
        x = run.samples[name].to_numpy()
        low, high = np.quantile(draws[:, i], (END, 1.0 - END))
        ends = prior.distributions[name].support
        for end, there, at in (("lower", x <= low, ends[0]), ("upper", x >= high, ends[1])):
            if np.isfinite(at) and weights[there].sum() > PILED * weights.sum():
                found[name] = end
    return found


def doubts(figures: dict) -> list[str]:
    """What a reader must know before the posterior is believed, a line each; empty where nothing is wrong.

    Parameters
    ----------
    figures : dict
        As `goodness` gives them, or a run's summary; keys that are missing (version 0.1) say nothing.
    """
    lines = []
    chi2, dof, p = (figures.get(key) for key in ("chi2", "dof", "p_value"))
    if p is not None:
        ratio = f"chi-square {chi2:.4g} for {dof} degrees of freedom at the best point"
        if p < UNLIKELY:
            lines.append(
                f"the model does not fit the data: {ratio} (p {p:.1g}); do not use this posterior: check unit, noise "
                "and foreground"
            )
        elif chi_square.cdf(chi2, dof) < CORRELATED:
            lines.append(f"the data scatter less than the noise: {ratio}; check the noise and the unit of the data")
    correlation = figures.get("residual_correlation")
    if correlation is not None and chi2 is not None and dof is not None:
        # White noise: normal with variance 1/n.
        if 2.0 * norm.sf(abs(correlation) * np.sqrt(dof)) < CORRELATED:
            noise = figures.get("fitted_noise_mK")
            taken = "" if noise is None else f", and the fitted {noise:.4g} mK of noise took in what it lacks"
            lines.append(
                f"the residuals are not noise: neighbouring channels are correlated by {correlation:+.2f}, so the "
                f"model lacks something{taken}"
            )
    ends = figures.get("at_prior_end") or {}
    if ends:
        names = ", ".join(f"{name} ({end})" for name, end in ends.items())
        lines.append(
            f"posterior piles up at the end of its prior: {names}; the data want values beyond, or the model is wrong"
        )
    return lines
