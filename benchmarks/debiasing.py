"""Does the emulator's error covariance restore coverage? The linear estimate, a table of docs/results/bias.md.

    python benchmarks/debiasing.py

At each shipped test signal the model is made linear by the emulator's Jacobian, the prior Gaussian with its variance,
and the error is the signal's own. Then the fit's mean is off by a known shift, besides what noise and prior draw, and
the coverage of each parameter's central intervals is exact: with the noise alone in the likelihood, and with the error
covariance added to it, which the data do not have.
"""

import numpy as np
from pages import replace_in_page
from scipy.stats import norm

from lstmfit import Emulator
from lstmfit.analysis.forecast import jacobians
from lstmfit.emulator.emulator import shipped_test_set

NOISE = (5.0, 2.0, 1.0, 0.5, 0.25, 0.1)
LEVELS = (0.68, 0.95)


def coverage(jacobian, error, sigma, prior, inverse):
    """Shift, coverages and chi-square over d, of one signal.

    Parameters
    ----------
    jacobian : numpy.ndarray
        (d, n) mK per unit of the prior's space.
    error : numpy.ndarray
        (n,) emulated minus true signal in mK.
    sigma : float
        White noise of the data in mK.
    prior : numpy.ndarray
        (d,) variances.
    inverse : numpy.ndarray
        (n, n), of the covariance in the likelihood.
    """
    weighted = jacobian @ inverse
    posterior = np.linalg.inv(weighted @ jacobian.T + np.diag(1.0 / prior))
    gain = posterior @ weighted
    shift = -gain @ error
    # Covariance of the mean about the truth, from the noise of the data and from truths drawn from the prior.
    pull = posterior / prior
    scatter = sigma**2 * gain @ gain.T + pull @ (prior[:, None] * pull.T)
    width = np.sqrt(np.diag(posterior))
    z, spread = shift / width, np.sqrt(np.diag(scatter)) / width
    covered = [norm.cdf((k - z) / spread) - norm.cdf((-k - z) / spread) for k in norm.isf(0.5 - 0.5 * np.array(LEVELS))]
    chi2 = np.trace(np.linalg.solve(posterior, scatter + np.outer(shift, shift))) / len(z)
    return np.abs(z).max(), np.mean(covered, axis=1), chi2


def main():
    """Compute the table and write it to the page."""
    emulator, test = Emulator.load("echo21"), shipped_test_set("echo21")
    error = emulator(test.theta) - test.signal
    derivatives = jacobians(emulator, test.theta, emulator.names)
    width = np.array([np.log10(p.max / p.min) if p.log else p.max - p.min for p in emulator.parameters])
    covariance, n = emulator.errors["covariance"], error.shape[1]
    lines = [
        f"{len(error)} test signals, all {len(width)} parameters.",
        "",
        "| noise [mK] | emulator_error | largest shift, mean / 95th percentile [σ] "
        "| coverage of 68 % intervals: mean, 5th percentile | coverage of 95 % intervals: mean, 5th percentile "
        "| chi-square / d |",
        "|" + "---|" * 6,
    ]
    for sigma in NOISE:
        for name, extra in (("false", 0.0), ("true", covariance)):
            inverse = np.linalg.inv(sigma**2 * np.eye(n) + extra)
            found = [coverage(j, e, sigma, width**2 / 12.0, inverse) for j, e in zip(derivatives, error)]
            shift, covered, chi2 = (np.array(x) for x in zip(*found))
            cells = [f"{c.mean():.3f}, {np.percentile(c, 5):.2f}" for c in covered.T]
            lines.append(
                f"| {sigma:g} | {name} | {shift.mean():.2f} / {np.percentile(shift, 95):.2f} | {' | '.join(cells)} "
                f"| {chi2.mean():.2f} |"
            )
    replace_in_page("bias.md", "debiasing", "\n".join(lines))


if __name__ == "__main__":
    main()
