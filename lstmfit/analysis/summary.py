"""Summary of a finished run: evidence, parameters, goodness of fit."""

import numpy as np

from lstmfit.analysis.autocorrelation import effective_sizes, knows_correlation
from lstmfit.analysis.chains import Run, evidence
from lstmfit.analysis.goodness import goodness
from lstmfit.analysis.insertion import insertion_p
from lstmfit.analysis.reweight import weighted_quantiles


def summarise(run: Run, facts: dict, n_draws: int = 1000) -> dict:
    """Evidence and parameter table.

    Parameters
    ----------
    run : Run
        The run.
    facts : dict
        Figures reported by the sampler: n_like, n_live, wall_s, ranks, sampler, prior_fraction, ...
    n_draws : int
        Number of draws of the prior volumes, which give the errors.

    Returns
    -------
    dict
        Content of ``summary.json``; log-uniform parameters are in log10. logZ refers to the whole prior: PolyChord
        discards the part of the prior where the likelihood is zero, which `prior_fraction` corrects. mean_err is the
        error of a mean; None for a single run of nested sampling, which does not tell how correlated its points are.
        insertion_p is the p-value of `lstmfit.analysis.insertion`, None for weighted samples; fit and at_prior_end are
        those of `lstmfit.analysis.goodness.goodness`.
    """
    samples = run.natural()
    figures = _from_births(samples, n_draws) if hasattr(samples, "logZ") else _from_weights(samples)
    figures["logZ"] += float(np.log(facts.get("prior_fraction") or 1.0))
    weights = samples.get_weights()
    truth, parameters = run.truth(), {}
    sizes, known = effective_sizes(samples, run.problem.names)[0], knows_correlation(samples)
    for name, size in zip(run.problem.names, sizes):
        x = samples[name].to_numpy()
        low, median, high = weighted_quantiles(x, weights, (0.15865525393145707, 0.5, 0.8413447460685429))
        mean = float(np.average(x, weights=weights))
        std = float(np.sqrt(np.average((x - mean) ** 2, weights=weights)))
        parameters[name] = {
            "mean": mean,
            "mean_err": float(std / np.sqrt(size)) if known else None,
            "std": std,
            "median": median,
            "lo68": low,
            "hi68": high,
            "truth": truth.get(name),
        }
        if run.log10[name]:
            parameters[name]["log10"] = True
    return {**figures, "insertion_p": insertion_p(samples), **facts, **goodness(run), "parameters": parameters}


def mean_with_error(figures: dict) -> str:
    """Mean of a parameter with its error, if it is known."""
    error = figures["mean_err"]
    return f"{figures['mean']:.4g}" + ("" if error is None else f" ± {error:.1g}")


def _from_births(samples, n_draws):
    from anesthetic.utils import temporary_seed

    with temporary_seed(0):
        draws = samples.stats(nsamples=n_draws)
    return {
        "logZ": float(draws["logZ"].mean()),
        "logZ_err": float(draws["logZ"].std()),
        "D_KL": float(draws["D_KL"].mean()),
        "D_KL_err": float(draws["D_KL"].std()),
        "d_G": float(draws["d_G"].mean()),
    }


def _from_weights(samples):
    """The same for weighted samples, with the evidence computed by the sampler.

    With weights w that sum to one, D_KL = sum w ln L - ln Z and d_G = 2 var(ln L). The error of D_KL is that of a ratio
    of weighted sums, whose derivative with respect to a weight is ln L - <ln L> - 1.
    """
    logZ, logZ_err = evidence(samples, 0)
    w = samples.get_weights() / samples.get_weights().sum()
    logL = samples["logL"].to_numpy()
    deviation = logL - w @ logL
    return {
        "logZ": logZ,
        "logZ_err": logZ_err,
        "D_KL": float(w @ logL - logZ),
        "D_KL_err": float(np.sqrt(np.sum((w * (deviation - 1.0)) ** 2))),
        "d_G": float(2.0 * w @ deviation**2),
    }
