"""A linear model through the whole driver, mock after mock: is the posterior that it writes the one of closed form?

Simulation-based calibration (Talts et al. 2018, arXiv:1804.06788) says whether posteriors are right on average. Here
the model is linear and priors and noise are Gaussian, so each posterior and each evidence is known, too. What was
measured is shown by ``pytest -m slow --log-cli-level=INFO tests/sampling/test_sbc.py``.
"""

import json
import logging

import numpy as np
import pytest
from scipy.stats import chi2, kstest, multivariate_normal, ttest_1samp

from lstmfit.analysis.chains import read_samples
from lstmfit.analysis.reweight import effective_size
from lstmfit.driver import fit

MOCKS, WRONG_MOCKS = 40, 12
SIGMA, REFERENCE = 25.0, 75.0
SHAPE = {"nu_0": 78.0, "w": 19.0, "tau": 7.0}
NAMES = ("A", "a0", "a1")
# An amplitude in mK and a sky in K, known before to some ten times what the data know: it costs little to sample.
CENTRE, SCALE = np.array([500.0, 1750.0, -120.0]), np.array([60.0, 0.05, 0.1])
UNLIKELY = 1e-3

log = logging.getLogger(__name__)


def make_run(theta, seed, sigma):
    """A run file: data of the true `SIGMA`, a likelihood of `sigma`."""
    foreground = {"model": "log_polynomial", "reference": REFERENCE}
    mock = {"theta": {"A": float(theta[0])} | SHAPE, "noise": SIGMA, "seed": seed}
    mock["foreground"] = foreground | {"coefficients": theta[1:].tolist()}
    fitted = foreground | {"terms": 2, "marginalise": False, "mean": CENTRE[1:].tolist(), "scale": SCALE[1:].tolist()}
    prior = {"dist": "norm", "loc": float(CENTRE[0]), "scale": float(SCALE[0])}
    return {
        "signal": "flattened_gaussian",
        "data": {"mock": mock, "band": [50, 100]},
        "likelihood": {"global_signal": {"noise": {"model": "white", "sigma": sigma}, "foreground": fitted}},
        "params": {"A": {"prior": prior}} | SHAPE,
        "sampler": {"polychord": {"nlive": "25d", "num_repeats": "5d", "seed": seed}},
    }


def design(nu):
    """The model's matrix (n, 3), written out here: Bowman et al. (2018), methods, and a power law times ln nu."""
    tau, x = SHAPE["tau"], nu / REFERENCE
    b = 4.0 * (nu - SHAPE["nu_0"]) ** 2 / SHAPE["w"] ** 2 * np.log(-np.log((1.0 + np.exp(-tau)) / 2.0) / tau)
    dip = -(1.0 - np.exp(-tau * np.exp(b))) / (1.0 - np.exp(-tau))
    return np.stack([dip, 1000.0 * x**-2.5, 1000.0 * x**-2.5 * np.log(x)], axis=1)


def closed_form(nu, temperature, sigma):
    """Posterior mean and covariance, ln Z and D_KL."""
    matrix, prior = design(nu), np.diag(SCALE**2)
    covariance = np.linalg.inv(matrix.T @ matrix / sigma**2 + np.linalg.inv(prior))
    residual = temperature - matrix @ CENTRE
    mean = CENTRE + covariance @ matrix.T @ residual / sigma**2
    sharper = np.linalg.solve(prior, covariance)
    shift = (mean - CENTRE) / SCALE
    d_kl = 0.5 * (np.trace(sharper) + shift @ shift - len(CENTRE) - np.linalg.slogdet(sharper)[1])
    total = sigma**2 * np.eye(len(nu)) + matrix @ prior @ matrix.T
    return mean, covariance, multivariate_normal(np.zeros(len(nu)), total).logpdf(residual), d_kl


def fit_one(folder, theta, seed, sigma):
    """One mock through `lstmfit fit`: the truth's rank and distance, and what is off from the closed form for SIGMA."""
    fit(make_run(theta, seed, sigma), folder, jobs=1)
    summary = json.loads((folder / "summary.json").read_text())
    data = np.loadtxt(folder / "data.csv", delimiter=",", skiprows=1)
    exact_mean, exact_covariance, exact_logZ, exact_d_kl = closed_form(data[:, 0], data[:, 1], SIGMA)
    samples = read_samples(folder / "chain")
    x, weights = samples[list(NAMES)].to_numpy(), samples.get_weights()
    weights = weights / weights.sum()
    mean = np.array([summary["parameters"][name]["mean"] for name in NAMES])
    covariance = (weights[:, None] * (x - mean)).T @ (x - mean)
    std = np.array([summary["parameters"][name]["std"] for name in NAMES])
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), std, rtol=1e-6)
    factor = np.linalg.cholesky(exact_covariance)
    white = np.linalg.solve(factor, np.linalg.solve(factor, covariance).T)
    distance = mean - theta
    return {
        "rank": ((x < theta) * weights[:, None]).sum(axis=0),
        "chi2": distance @ np.linalg.solve(covariance, distance),
        # Every shell of a Gaussian has the same mean, so the error is that of so many independent points.
        "mean": np.linalg.solve(factor, mean - exact_mean) * np.sqrt(effective_size(weights)),
        "width": 0.5 * np.log(np.diag(white)),
        "correlation": white[np.triu_indices(len(NAMES), 1)],
        "logZ": (summary["logZ"] - exact_logZ) / summary["logZ_err"],
        # What theory says of this many live points.
        "error": summary["logZ_err"] / np.sqrt(exact_d_kl / summary["n_live"]),
        "n_like": summary["n_like"],
        "insertion_p": summary["insertion_p"],
    }


def campaign(folder, n, sigma):
    """Mocks from the prior; figures by name, (n, ...)."""
    rng = np.random.default_rng(1)
    truths = CENTRE + SCALE * rng.standard_normal((n, len(NAMES)))
    fits = [fit_one(folder / str(i), theta, i, sigma) for i, theta in enumerate(truths)]
    return {key: np.array([f[key] for f in fits]) for key in fits[0]}


def two_sided(total, n):
    """Chance of a sum of n squares of standard normal numbers as far out as `total`, to either side."""
    return 2.0 * min(chi2.sf(total, n), chi2.cdf(total, n))


def probabilities(found):
    """Chance of each figure of a campaign, if all is right."""
    n, d = found["rank"].shape
    chances = {f"rank of {name}": kstest(found["rank"][:, j], "uniform").pvalue for j, name in enumerate(NAMES)}
    chances["chi2 of the truth"] = two_sided(found["chi2"].sum(), n * d)
    chances["posterior means"] = two_sided(np.sum(found["mean"] ** 2), n * d)
    chances["evidences"] = two_sided(np.sum(found["logZ"] ** 2), n)
    chances["shift of the means"] = chi2.sf(n * d * found["mean"].mean() ** 2, 1)
    chances["shift of the evidences"] = chi2.sf(n * found["logZ"].mean() ** 2, 1)
    # Their scatter is not known beforehand.
    chances["widths"] = ttest_1samp(found["width"].mean(axis=1), 0.0).pvalue
    chances["correlations"] = ttest_1samp(found["correlation"].mean(axis=1), 0.0).pvalue
    chances["insertion"] = kstest(found["insertion_p"], "uniform").pvalue
    return chances


def say(found):
    n, d = found["rank"].shape
    log.info("%d mocks, calls %.0f, chi2/d %.3f", n, found["n_like"].sum(), found["chi2"].mean() / d)
    for key in ("mean", "logZ", "width", "correlation", "error"):
        log.info("%s: mean %.3f, scatter %.3f", key, found[key].mean(), found[key].std())
    for what, chance in probabilities(found).items():
        log.info("%s: p %.2g", what, chance)


@pytest.mark.slow
def test_every_posterior_is_the_known_one(tmp_path):
    """Ranks and distances of the truth, and mean, covariance, evidence and their quoted errors against closed forms."""
    found = campaign(tmp_path, MOCKS, SIGMA)
    say(found)
    unlikely = {what: chance for what, chance in probabilities(found).items() if not chance > UNLIKELY}
    assert not unlikely
    # Some 350 effective points each: a width to 4 per cent, a correlation to 0.05.
    assert np.abs(found["width"]).max() < 0.2
    assert np.abs(found["correlation"]).max() < 0.25
    np.testing.assert_allclose(found["error"], 1.0, atol=0.25)


@pytest.mark.slow
def test_a_wrong_noise_is_caught(tmp_path):
    """A likelihood that believes in 0.6 of the true noise: too narrow, and the checks above say so."""
    found = campaign(tmp_path, WRONG_MOCKS, 0.6 * SIGMA)
    say(found)
    assert found["width"].mean() == pytest.approx(np.log(0.6), abs=0.1)
    unlikely = {what for what, chance in probabilities(found).items() if not chance > UNLIKELY}
    assert {"chi2 of the truth", "evidences", "widths"} <= unlikely
