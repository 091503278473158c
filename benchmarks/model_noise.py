"""Radiometer noise of the model's sky: ln L with a marginalised foreground against the evidence of the sampled one.

python benchmarks/model_noise.py     # a minute; prints the table of docs/likelihoods.md

The evidence at a given signal is that of the sampled foreground, whose noise is exact for all its coefficients, by
importance sampling from their conditional distribution.
"""

import argparse
import warnings

import numpy as np
from scipy.special import logsumexp

from lstmfit.datasets.spectrum import Spectrum
from lstmfit.likelihoods import make_likelihood

REDSHIFTS, FREQUENCY, WIDTH = np.linspace(5.0, 50.0, 451), np.arange(55.0, 130.0, 0.5), 0.5
SIGNALS = -100.0 * np.exp(-0.5 * ((REDSHIFTS - 17.0) / 2.0) ** 2), np.zeros(451)
"""A signal of 100 mK, and none."""
PRIOR = {"mean": [1750.0, 0.0, 30.0, 0.0, 0.0], "scale": [100.0, 50.0, 50.0, 50.0, 50.0]}
TRUTH = np.array([1750.0, -3.0, 30.0, 2.0, -1.0])
NONE = np.empty(0)


def likelihood(temperature, samples: float, sky: str, marginalise: bool):
    """Likelihood of a spectrum whose channels have a number of independent samples."""
    hours = samples / (WIDTH * 1e6) / 3600.0
    noise = {"model": "radiometer", "channel_width": WIDTH, "integration_time": hours, "sky": sky}
    foreground = {"terms": 5, "marginalise": marginalise, **PRIOR}
    options = {"noise": noise, "foreground": foreground}
    return make_likelihood("global_signal", REDSHIFTS, options, Spectrum(FREQUENCY, temperature, np.ones(150)))


def differences(samples: float, rng: np.random.Generator, n_draws: int) -> np.ndarray:
    """Ln L minus that of the exact noise for a mock: (2 signals, [noise of the data, of the model])."""
    sky = likelihood(np.full(150, 1e6), samples, "model", False).model(SIGNALS[0], TRUTH)
    temperature = sky * (1.0 + rng.standard_normal(150) / np.sqrt(samples))
    model, data = (likelihood(temperature, samples, which, True) for which in ("model", "data"))
    exact, found = likelihood(temperature, samples, "model", False), []
    for signal in SIGNALS:
        fixed = exact.density.with_extra(model.with_variance_at(signal, NONE).density.extra)
        # The same random numbers for both, so that the error of their difference is small.
        own = np.random.default_rng(2)
        draws = [model.coefficients(signal, NONE, own) for _ in range(n_draws)]
        change = [exact(signal, a) - fixed.logpdf_whitened(exact.residual(signal, a), 0.0) for a in draws]
        evidence = model(signal, NONE) + logsumexp(change) - np.log(n_draws)
        found.append([data(signal, NONE) - evidence, model(signal, NONE) - evidence])
    return np.array(found)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mocks", type=int, default=20)
    parser.add_argument("--draws", type=int, default=2500)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    columns = "dnu tau", "`sky: data`", "`sky: model`", "signal or none, `sky: data`", "`sky: model`"
    print(f"| {' | '.join(columns)} |\n{'|---' * 5}|")
    for samples in (1e3, 1e4, 1e5, 1e6, 1e7):
        rng = np.random.default_rng(1)
        found = np.array([differences(samples, rng, given.draws) for _ in range(given.mocks)])
        ln_l, ratio = np.sqrt((found[:, 0] ** 2).mean(axis=0)), np.abs(found[:, 0] - found[:, 1]).max(axis=0)
        print(f"| 1e{np.log10(samples):.0f} | " + " | ".join(f"{x:.1g}" for x in (*ln_l, *ratio)) + " |", flush=True)


if __name__ == "__main__":
    main()
