"""Goodness of fit, and posteriors that pile up at the edge of their prior; checked after every fit."""

import numpy as np
from scipy.stats import chi2 as chi_square

from lstmfit.analysis.chains import Run, equal_weight
from lstmfit.analysis.residual_tests import FittedDirections, largest_outlier, noise_tests

UNLIKELY = 1e-4
"""Residuals are not noise if the p-value of a test is below this."""
N_DRAWS = 400
"""Number of posterior draws for the tests."""
END, PILED = 0.05, 0.25
"""A posterior piles up at an edge if more than 25 % of it lies in the outermost 5 % of the prior."""


def goodness(run: Run, seed: int = 0) -> dict:
    """Goodness of fit, and parameters that pile up at an edge of their prior.

    Parameters
    ----------
    run : Run
        A finished run.
    seed : int
        Seed of the posterior draws and of the simulated residuals.

    Returns
    -------
    dict
        ``fit``: ``spectra``, the result of `spectrum_fit` for each spectrum by name, and over all spectra ``chi2``,
        ``dof``, ``p_value``, ``posterior_predictive_p`` and ``verdict``; None without spectra. ``at_prior_end``:
        ``lower`` or ``upper``, by name of the parameters that pile up there.
    """
    problem, rng = run.problem, np.random.default_rng(seed)
    best = run.samples.iloc[int(np.argmax(run.samples["logL"].to_numpy()))]
    theta = np.vstack([best[list(problem.names)].to_numpy(dtype=float), equal_weight(run, N_DRAWS, rng)])
    signals = np.array([problem.signal_at(t) for t in theta])
    noise = {n for likelihood in problem.spectra.values() for n in likelihood.names[: len(likelihood.noise.names)]}
    spectra, totals = {}, np.zeros((2, N_DRAWS))
    for name, likelihood in problem.spectra.items():
        values = np.array([problem.values(t, name) for t in theta])
        spectra[name], at_draws = spectrum_fit(likelihood, signals, values, len(set(problem.names) - noise), rng)
        totals += at_draws
    fit = {**_total(spectra, totals), "spectra": spectra} if spectra else None
    return {"fit": fit, "at_prior_end": prior_ends(run)}


def spectrum_fit(likelihood, signals: np.ndarray, values: np.ndarray, n_sampled: int, rng: np.random.Generator):
    """Goodness of fit of one spectrum.

    Parameters
    ----------
    likelihood : GlobalSignal
        The likelihood of the spectrum.
    signals : numpy.ndarray
        (1 + m, n_channels) mK, signals at the best point and at m posterior draws.
    values : numpy.ndarray
        (1 + m, len(likelihood.names)) parameters of the likelihood there.
    n_sampled : int
        Number of sampled parameters, without those of the noise.
    rng : numpy.random.Generator
        Random generator of the foreground coefficients and of the simulated residuals.

    Returns
    -------
    figures : dict
        ``chi2`` at the best point with respect to the noise, including the emulator error; ``dof``, and ``p_value``,
        the probability of a larger chi-square; ``posterior_predictive_p``; ``autocorrelation`` and ``runs`` as in
        `lstmfit.analysis.residual_tests.noise_tests`; ``largest_outlier``: ``frequency``, ``sigma`` and its
        ``p_value`` among all channels; ``fitted_noise_mK``, sigma or floor of the best point if it is free, otherwise
        None; ``verdict``: ``fits`` and ``text``. Tests that cannot be made are None.
    at_draws : numpy.ndarray
        (2, m) the chi-squares of Notes, of the data and the number of channels, which add up over spectra.

    Notes
    -----
    dof is the number of channels minus the number of effectively fitted parameters, the mean chi-square of the
    posterior draws minus that of the best point (Spiegelhalter et al. 2002, J. R. Stat. Soc. B 64, 583). The draws
    include the coefficients of a marginalised foreground, the best point has them at their conditional mean, and the
    noise is that of the best point. For a linear model with wide priors this is the number of parameters; with Gaussian
    priors it is the trace of the hat matrix; and parameters that the data do not constrain do not count. Parameters of
    the noise never count: if they are free, chi-square is close to its expectation for any model, and the other tests
    decide.

    The posterior predictive p-value (Gelman, Meng & Stern 1996, Stat. Sin. 6, 733) has chi-square as its discrepancy.
    Chi-square of replicated data at a posterior draw is that of their noise, with n degrees of freedom, so that no data
    need to be drawn: it is the mean over the draws of the probability that it exceeds chi-square of the data, with the
    noise of each draw. Since the same data give the posterior, it is closer to 0.5 than a uniform number would be.
    """
    frequency = np.sort(np.asarray(likelihood.spectrum.frequency, dtype=float))
    best = signals[0], values[0]
    z = likelihood.standard_residuals(*best)
    temperature = np.asarray(likelihood.spectrum.temperature, dtype=float)
    residuals, of_data = [], []
    for signal, own in zip(signals[1:], values[1:]):
        sky = likelihood.sky(signal, own, rng)
        residuals.append(temperature - sky)
        of_data.append(likelihood.with_variance_at(signal, own).chi_square_of(temperature - sky, own))
    draws = likelihood.with_variance_at(*best).standardise(np.array(residuals), values[0])
    n, chi2 = len(z), float(z @ z)
    fitted = FittedDirections.of(draws)
    n_fitted = np.clip((draws**2).sum(axis=1).mean() - chi2, 0.0, n_sampled + likelihood.n_marginalised)
    worst, sigma, p_worst = largest_outlier(z, fitted)
    noise = likelihood.noise
    figures = {
        **_chi_square(chi2, n - float(n_fitted)),
        "posterior_predictive_p": float(chi_square.sf(of_data, n).mean()),
        **(noise_tests(z, fitted, rng) or {"autocorrelation": None, "runs": None}),
        "largest_outlier": {"frequency": float(frequency[worst]), "sigma": sigma, "p_value": p_worst},
        "fitted_noise_mK": noise.at(values[0]).sigma if noise.sigma is None else None,
    }
    figures["verdict"] = spectrum_verdict(figures)
    return figures, np.array([of_data, np.full(len(of_data), float(n))])


def _chi_square(chi2, dof):
    p = float(chi_square.sf(chi2, dof)) if dof > 0 else None
    return {"chi2": chi2, "dof": dof if dof > 0 else None, "p_value": p}


def _total(spectra, at_draws):
    """Figures over all spectra."""
    parts = list(spectra.values())
    dof = sum(part["dof"] or 0.0 for part in parts)
    of_data, n = at_draws
    texts = [part["verdict"]["text"] for part in parts]
    if len(parts) > 1:
        texts = [f"{name}: {text}" for name, text in zip(spectra, texts)]
    return {
        **_chi_square(sum(part["chi2"] for part in parts), dof),
        "posterior_predictive_p": float(chi_square.sf(of_data, n).mean()),
        "verdict": {"fits": all(part["verdict"]["fits"] for part in parts), "text": "; ".join(texts)},
    }


def _p(value) -> str:
    return f"p {value:.1g}" if value > 1e-300 else "p < 1e-300"


def spectrum_verdict(figures: dict) -> dict:
    """Judge the figures of a spectrum.

    Parameters
    ----------
    figures : dict
        As from `spectrum_fit`.

    Returns
    -------
    dict
        ``fits``: whether no test has a p-value below 1e-4; ``text``: the reason in one line.
    """
    chi2, dof, p = (figures[key] for key in ("chi2", "dof", "p_value"))
    noise, wrong, right = figures["fitted_noise_mK"], [], []
    absorbed = "" if noise is None else f"chi-square cannot tell, because the noise is fitted ({noise:.3g} mK)"
    if p is not None:
        said = f"chi-square {chi2:.4g} for {dof:.1f} degrees of freedom, {_p(p)}"
        low = float(chi_square.cdf(chi2, dof))
        if p < UNLIKELY:
            wrong.append(f"the model does not fit, {said}")
        elif low < UNLIKELY:
            wrong.append(f"they scatter less than the noise, {said[: said.rindex(',')]}, {_p(low)}")
        elif noise is None:
            right.append(said)
    correlation, runs, outlier = (figures[key] for key in ("autocorrelation", "runs", "largest_outlier"))
    if correlation is not None:
        channels, lag_1, p = (correlation[key] for key in ("channels", "lag_1", "p_value"))
        if p < UNLIKELY:
            over = f"correlated over {channels} channels" if channels > 1 else "correlated between distant channels"
            wrong.append(f"{'neighbouring channels anticorrelated' if lag_1 < -0.2 else over}, {_p(p)}")
        else:
            right.append(f"correlation {lag_1:+.2f}, {_p(p)}")
        p = runs["p_value"]
        what = f"{runs['n']} runs of one sign where {runs['expected']:.0f} are expected, {_p(p)}"
        (wrong if p < UNLIKELY else right).append(what)
    far = f"{outlier['sigma']:+.1f} sigma at {outlier['frequency']:.4g} MHz, {_p(outlier['p_value'])}"
    (wrong if outlier["p_value"] < UNLIKELY else right).append(f"largest outlier {far}")
    lead = "residuals are not noise: " if wrong else "residuals are noise: "
    said = [*(wrong or right), *([absorbed] if absorbed else [])]
    return {"fits": not wrong, "text": lead + "; ".join(said)}


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
    lines = []
    fit = figures.get("fit")
    if fit is not None and not fit["verdict"]["fits"]:
        lines.append(
            f"{fit['verdict']['text']}; do not use this posterior, but check the foreground, the noise and the unit of "
            "the data"
        )
    ends = figures.get("at_prior_end") or {}
    if ends:
        names = ", ".join(f"{name} ({end})" for name, end in ends.items())
        lines.append(
            f"the posterior piles up at the edge of the prior: {names}; widen the prior, or check the model and the "
            "data"
        )
    return lines
