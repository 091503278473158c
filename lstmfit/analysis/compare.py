"""Two posteriors side by side: any chains that anesthetic reads."""

import numpy as np

from lstmfit.analysis.chains import evidence
from lstmfit.analysis.divergence import gaussian_divergence, nearest_neighbour_divergence, with_error
from lstmfit.analysis.foreign_chains import Chain, parameter_names, take_log10
from lstmfit.analysis.reweight import choose_points, effective_size
from lstmfit.errors import InputError, did_you_mean

MOST_NEIGHBOURS = 4000
"""Equal-weight samples that the nearest-neighbour estimate uses: more cost time and gain little."""


def align(a: Chain, b: Chain, log10=()) -> tuple[Chain, Chain, list[str]]:
    """Bring two chains to the same parameters in the same space.

    Parameters
    ----------
    a, b : Chain
        The chains.
    log10 : sequence of str
        Columns to take log10 of, besides those of our own runs.

    Returns
    -------
    a, b : Chain
        With log10 taken and names settled: a chain without names (no .paramnames) takes the other's, in its order; two
        without have their columns' numbers, as anesthetic has.
    names : list of str
        Parameters that both have and that vary, in the order of `b`.

    Raises
    ------
    InputError
        They have no parameter in common, or a name in `log10` is in neither.
    """
    a, b = _named_like(a, b), _named_like(b, a)
    out = []
    for chain in (a, b):
        wanted = [name for name in log10 if name not in chain.log10 and name in chain.samples]
        out.append(Chain(chain.label, take_log10(chain.samples, wanted), chain.log10 | set(wanted)))
    known = parameter_names(a.samples), parameter_names(b.samples)
    for name in log10:
        if name not in known[0] and name not in known[1]:
            raise InputError(f"--log10: no parameter {name!r} in either chain; {did_you_mean(name, known[1])}")
    names = [n for n in known[1] if n in known[0] and all(c.samples[n].to_numpy().std() > 0 for c in out)]
    if not names:
        raise InputError(
            f"{a.label} has parameters {', '.join(known[0])}; {b.label} has {', '.join(known[1])}; none in common"
        )
    different = [n for n in names if (n in out[0].log10) != (n in out[1].log10)]
    if different:
        raise InputError(f"{different[0]} is log10 in one chain only; add --log10 {','.join(different)}")
    return out[0], out[1], names


def _numbers(chain):
    """Columns that have a number in place of a name."""
    columns = [c[0] if isinstance(c, tuple) else c for c in chain.samples.columns]
    return [c for c in columns if isinstance(c, (int, np.integer))]


def _named_like(chain, other):
    numbers, names = _numbers(chain), parameter_names(other.samples)
    if numbers and not names:
        names = [str(number) for number in _numbers(other)]
        if len(names) != len(numbers):
            raise InputError(
                f"{chain.label} has {len(numbers)} columns without names, {other.label} {len(names)}; "
                "put a .paramnames beside each chain"
            )
    if not numbers or len(numbers) < len(names):
        return chain
    renamed = chain.samples.copy()
    for number, name in zip(numbers, names):
        renamed[name] = renamed[number].to_numpy()
    return Chain(chain.label, renamed, chain.log10)


def compare(a, b, names: list[str], seed: int = 0) -> dict:
    """Figures of two weighted samples, A against B: with A emulated and B true, the emulation bias.

    Parameters
    ----------
    a, b : anesthetic.Samples
        In the same space.
    names : list of str
        Parameters to compare.
    seed : int
        Of equal-weight draws, halves and prior volumes.

    Returns
    -------
    dict
        ``parameters``: by name, ``bias`` = |mean_a - mean_b| / std_b with ``bias_err``, ``difference_sigma`` =
        |mean_a - mean_b| / sqrt(std_a^2 + std_b^2), ``ks`` (Kolmogorov-Smirnov distance of the weighted marginals)
        and ``ks_p`` with effective sizes, ``width_ratio`` = std_a / std_b, means and widths. ``D_KL_gaussian``,
        ``D_KL`` and their errors are D_KL(B || A), by two Gaussians and by nearest neighbours; ``*_reverse`` are
        D_KL(A || B). ``mean_bias`` over the parameters. ``logZ_a``, ``logZ_b`` are None for chains without evidence,
        and so are ``dlogZ`` = logZ_b - logZ_a, what the emulator takes from the evidence, and its error. ``ess_a``,
        ``n_a``, ...
    """
    rng = np.random.default_rng(seed)
    x = [s[list(names)].to_numpy() for s in (a, b)]
    w = [s.get_weights() / s.get_weights().sum() for s in (a, b)]
    sizes = [effective_size(v) for v in w]
    means = [v @ p for v, p in zip(w, x)]
    stds = [np.sqrt(v @ (p - m) ** 2) for v, p, m in zip(w, x, means)]
    parameters = {}
    for i, name in enumerate(names):
        shift = (means[0][i] - means[1][i]) / stds[1][i]
        width = stds[0][i] / stds[1][i]
        distance = ks_distance(x[0][:, i], w[0], x[1][:, i], w[1])
        parameters[name] = {
            "bias": float(abs(shift)),
            "bias_err": float(np.sqrt(width**2 / sizes[0] + (1.0 + 0.5 * shift**2) / sizes[1])),
            "shift": float(shift),
            "difference_sigma": float(abs(shift) / np.hypot(1.0, width)),
            "ks": distance,
            "ks_p": ks_probability(distance, *sizes),
            "width_ratio": float(width),
            "mean_a": float(means[0][i]),
            "mean_b": float(means[1][i]),
            "std_a": float(stds[0][i]),
            "std_b": float(stds[1][i]),
        }
    # As many of both: what the neighbours' distances are off by, at edges and in tails, depends on how many there are,
    # and cancels where the two are alike.
    n_equal = min(_equal_size(v) for v in w)
    equal = [p[choose_points(v, n_equal, rng)[0]] for v, p in zip(w, x)]
    figures = {"parameters": parameters, "mean_bias": float(np.mean([p["bias"] for p in parameters.values()]))}
    figures |= _divergences("", *reversed(list(zip(x, w))), *reversed(equal), rng)
    figures |= _divergences("_reverse", *zip(x, w), *equal, rng)
    for label, samples, size, points in zip("ab", (a, b), sizes, x):
        figures[f"logZ_{label}"], figures[f"logZ_{label}_err"] = evidence(samples, 500, seed)
        figures[f"ess_{label}"], figures[f"n_{label}"] = size, len(points)
    known = figures["logZ_a"] is not None and figures["logZ_b"] is not None
    figures["dlogZ"] = figures["logZ_b"] - figures["logZ_a"] if known else None
    figures["dlogZ_err"] = float(np.hypot(figures["logZ_a_err"], figures["logZ_b_err"])) if known else None
    return figures


def _equal_size(weights):
    return int(min(1.0 / weights.max(), MOST_NEIGHBOURS, np.count_nonzero(weights)))


def _divergences(ending, p, q, equal_p, equal_q, rng):
    """D_KL(P || Q): Gaussian with all weights; by neighbours where the samples are many enough."""

    def gaussian(a, b):
        parts = [(s.mean(axis=0), np.atleast_2d(np.cov(s, rowvar=False))) for s in (a, b)]
        return gaussian_divergence(*parts[0], *parts[1])

    d = p[0].shape[1]
    moments = [(v @ s, np.atleast_2d(np.cov(s, rowvar=False, aweights=v))) for s, v in (p, q)]
    out = {f"D_KL_gaussian{ending}": gaussian_divergence(*moments[0], *moments[1])}
    # Halves of both samples must still determine a covariance.
    if min(len(equal_p), len(equal_q)) < 4 * (d + 2):
        return out | {f"D_KL_gaussian{ending}_err": None, f"D_KL{ending}": None, f"D_KL{ending}_err": None}
    out[f"D_KL_gaussian{ending}_err"] = with_error(gaussian, equal_p, equal_q, rng)[1]
    value, error = with_error(nearest_neighbour_divergence, equal_p, equal_q, rng)
    return out | {f"D_KL{ending}": value, f"D_KL{ending}_err": error}


def ks_distance(x, weights_x, y, weights_y) -> float:
    """Largest distance of two weighted cumulative distributions."""
    points = np.sort(np.concatenate([x, y]))

    def cumulative(values, weights):
        order = np.argsort(values)
        sums = np.concatenate([[0.0], np.cumsum(weights[order])])
        return sums[np.searchsorted(values[order], points, side="right")] / sums[-1]

    return float(np.abs(cumulative(x, weights_x) - cumulative(y, weights_y)).max())


def ks_probability(distance: float, size_x: float, size_y: float) -> float:
    """Chance of a larger Kolmogorov-Smirnov distance, with effective sizes (Stephens 1970's correction)."""
    from scipy.special import kolmogorov

    n = np.sqrt(size_x * size_y / (size_x + size_y))
    return float(kolmogorov((n + 0.12 + 0.11 / n) * distance))
