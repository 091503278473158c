"""Goodness of fit, and posteriors that pile up at the edge of their prior; checked after every fit."""

import numpy as np
from scipy.stats import chi2 as chi_square
from scipy.stats import norm

from lstmfit.analysis.chains import Run

UNLIKELY = 1e-4
"""The model does not fit the data if the p-value of chi-square is below this."""
CORRELATED = 1e-6
"""The residuals are not noise if the probability of their correlation, or of so small a chi-square, is below this."""
END, PILED = 0.05, 0.25
"""A posterior piles up at an edge if more than 25 % of it lies in the outermost 5 % of the prior."""


def goodness(run: Run) -> dict:
    """Goodness of fit of the best sample, and parameters that pile up at an edge of their prior.

    Parameters
    ----------
    run : Run
        A finished run.

    Returns
    -------
    dict
        ``chi2`` of the best sample with respect to the noise, without the emulator error; ``dof`` and ``p_value``, the
        probability of a larger chi-square; ``residual_correlation`` of neighbouring channels, whitened;
        ``fitted_noise_mK``, the best sample's sigma or floor if it is free, otherwise None; ``at_prior_end``: ``lower``
        or ``upper``, by name of the parameters that pile up there. dof and p_value are None unless there are more
        channels than parameters. For several spectra these are the figures of all channels, and ``spectra`` has those
        of each by name, with the degrees of freedom that remain after the parameters of the spectrum alone.

    Notes
    -----
    Student-t residuals are mapped to normal ones (`GlobalSignal.standard_residuals`), so that the sum of their squares
    follows a chi-square distribution too. If the noise is free, chi-square is close to its expectation for any model,
    and the correlation is the test.
    """
    problem = run.problem
    best = run.samples.iloc[int(np.argmax(run.samples["logL"].to_numpy()))]
    theta = best[list(problem.names)].to_numpy(dtype=float)
    signal, spectra, residuals = problem.signal_at(theta), {}, []
    for name, likelihood in problem.spectra.items():
        values = problem.values(theta, name)
        z = likelihood.standard_residuals(signal, values)
        residuals.append(z)
        fitted = sum(n in problem.names for n in likelihood.params) + likelihood.n_marginalised
        spectra[name] = _figures([z], fitted) | {
            "fitted_noise_mK": likelihood.noise.at(values).sigma if likelihood.noise.sigma is None else None
        }
    figures = _figures(residuals, len(problem.names) + problem.n_marginalised)
    noise = next(iter(spectra.values()))["fitted_noise_mK"] if len(spectra) == 1 else None
    figures |= {"fitted_noise_mK": noise, "at_prior_end": prior_ends(run)}
    return figures | ({"spectra": spectra} if len(spectra) > 1 else {})


def _figures(residuals, fitted):
    """Chi-square and correlation of the standard residuals (n,) of some spectra with a number of fitted parameters."""
    z = np.concatenate(residuals) if residuals else np.full(1, np.nan)
    chi2, dof = float(z @ z), len(z) - fitted
    good = dof > 0 and np.isfinite(chi2)
    return {
        "chi2": chi2 if np.isfinite(chi2) else None,
        "dof": dof if dof > 0 else None,
        "p_value": float(chi_square.sf(chi2, dof)) if good else None,
        "residual_correlation": _neighbours(residuals),
    }


def _neighbours(residuals):
    """Correlation of neighbouring channels of the same spectrum."""
    z = np.concatenate(residuals) if residuals else np.empty(0)
    if len(z) < 4 or not np.isfinite(z).all() or not np.std(z) > 0:
        return None
    pairs = [np.concatenate([part[where] for part in residuals]) for where in (slice(None, -1), slice(1, None))]
    return float(np.corrcoef(*pairs)[0, 1])


def prior_ends(run: Run, seed: int = 0) -> dict[str, str]:
    """Parameters with more than 25 % of the posterior in the outermost 5 % of the prior.

    Parameters
    ----------
    run : Run
        A finished run.
    seed : int
        Seed of the draws from the prior.

    Returns
    -------
    dict of str to str
        The edge, ``lower`` or ``upper``, by name. Only edges at which the prior is bounded are considered.
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
    """Warnings about a posterior, one line each; empty if there are none.

    Parameters
    ----------
    figures : dict
        Result of `goodness`, or a run's summary; missing keys (version 0.1) are ignored.
    """
    lines = [f"{name}: {line}" for name, one in (figures.get("spectra") or {}).items() for line in doubts(one)]
    chi2, dof, p = (figures.get(key) for key in ("chi2", "dof", "p_value"))
    if p is not None:
        ratio = f"chi-square {chi2:.4g} for {dof} degrees of freedom at the best point"
        if p < UNLIKELY:
            lines.append(
                f"the model does not fit the data: {ratio} (p = {p:.1g}); do not use this posterior, but check the "
                "unit, the noise and the foreground"
            )
        elif chi_square.cdf(chi2, dof) < CORRELATED:
            lines.append(f"the data scatter less than the noise: {ratio}; check the noise and the unit of the data")
    correlation = figures.get("residual_correlation")
    if correlation is not None and chi2 is not None and dof is not None:
        # White noise: normal with variance 1/n.
        if 2.0 * norm.sf(abs(correlation) * np.sqrt(dof)) < CORRELATED:
            noise = figures.get("fitted_noise_mK")
            taken = "" if noise is None else f", and the fitted noise of {noise:.4g} mK absorbs it"
            lines.append(
                f"the residuals are not noise: the correlation of neighbouring channels is {correlation:+.2f}, so the "
                f"model is missing structure in the data{taken}"
            )
    ends = figures.get("at_prior_end") or {}
    if ends:
        names = ", ".join(f"{name} ({end})" for name, end in ends.items())
        lines.append(
            f"the posterior piles up at the edge of the prior: {names}; widen the prior, or check the model and the "
            "data"
        )
    return lines
