"""Comparison of fits of the same data by their evidence: probabilities, and the signal averaged over the variants."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstmfit.analysis import plots
from lstmfit.analysis.bias import to_natural
from lstmfit.analysis.chains import Run, equal_weight, read_run, read_summary
from lstmfit.analysis.reweight import weighted_quantiles
from lstmfit.analysis.style import own_style
from lstmfit.files import write_text
from lstmfit.likelihoods.joint_spectra import JointSpectra

RESULT, PICTURE = "evidence.json", "evidence.png"
N_DRAWS = 500
"""Number of posterior draws of each variant."""
BANDS = {"lo95": 0.025, "lo68": 0.15865525393145707, "median": 0.5, "hi68": 0.8413447460685429, "hi95": 0.975}


@dataclass
class Variant:
    """A finished fit, with what its comparison with others needs.

    Parameters
    ----------
    summary : dict
        Content of its ``summary.json``.
    signals : numpy.ndarray
        (m, n) mK at the channels of the data, ascending in frequency, at posterior draws.
    definitions : list of (str, str or numpy.ndarray)
        Name and definition of each sampled parameter (its prior) and each marginalised coefficient (its term with mean
        and width of the prior), which must agree for two variants to share it.
    scaled : numpy.ndarray
        (m, len(definitions)) posterior draws, in the space of the prior and in units of its standard deviation.
    """

    summary: dict
    signals: np.ndarray
    definitions: list
    scaled: np.ndarray

    @classmethod
    def of(cls, run: Run, rng: np.random.Generator) -> "Variant":
        """From a finished run."""
        problem = run.problem
        theta = equal_weight(run, N_DRAWS, rng)
        signals = np.array([problem.signal_at(t) for t in theta])
        definitions: list = [(name, json.dumps(d.spec())) for name, d in problem.prior.distributions.items()]
        natural = to_natural(run, theta)
        scaled = natural / to_natural(run, problem.prior.sample(5000, rng)).std(axis=0) if problem.names else natural
        for name, part in problem.spectral_likelihoods.items():
            values = [problem.values(t, name) for t in theta]
            columns, found = _coefficients(name, part, signals, values, rng)
            scaled = np.column_stack([scaled, columns])
            several = len(problem.spectra) > 1
            definitions += [(f"{n}_{spectrum}" if several else n, what) for n, spectrum, what in found]
        on_channels = [likelihood.on_channels(signals) for likelihood in problem.spectra.values()]
        at = np.hstack(on_channels)[:, _channels(run)[1]] if on_channels else np.empty((N_DRAWS, 0))
        return cls(read_summary(run.folder), at, definitions, scaled)

    def shares(self, definition) -> bool:
        """Whether it has a parameter of this name and definition."""
        return any(_same(definition, own) for own in self.definitions)


def _channels(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (n,) of all channels, ascending, and their positions in the spectra one after another."""
    frequencies = [likelihood.spectrum.frequency for likelihood in run.problem.spectra.values()]
    return np.unique(np.concatenate([np.empty(0), *frequencies]), return_index=True)


def _coefficients(name, likelihood, signals, values, rng):
    """Marginalised coefficients (m, k) in units of the widths of their priors at m draws.

    Also, for each, its name, that of the spectrum, and its definition: its term with mean and width of the prior.
    """
    joint = isinstance(likelihood, JointSpectra)
    if not joint and likelihood.marginalised is None:
        return np.empty((len(signals), 0)), []
    members = likelihood.members if joint else {name: likelihood}
    drawn = [likelihood.coefficients(signal, own, rng) for signal, own in zip(signals, values)]
    columns, definitions, seen = [], [], set()
    for member, spectrum in members.items():
        component, order = spectrum.marginalised, np.argsort(spectrum.spectrum.frequency)
        scale = np.broadcast_to(component.scale, (len(component.names),))
        mean = np.broadcast_to(component.mean, scale.shape)
        if component.mixing is not None:
            scale = np.sqrt(((component.mixing * scale) ** 2).sum(axis=1))
        for j, coefficient in enumerate(component.names):
            which = likelihood.coefficients_of[member][j] if joint else j
            if which not in seen:
                # Otherwise it is shared with an earlier member.
                seen.add(which)
                columns.append([(a[member] if joint else a)[j] / scale[j] for a in drawn])
                definition = np.array([*component.terms[order, j], mean[j], scale[j]])
                definitions.append((coefficient, member, definition))
    return np.transpose(columns), definitions


def _same(one, other) -> bool:
    (name, what), (other_name, other_what) = one, other
    if name != other_name or type(what) is not type(other_what):
        return False
    if isinstance(what, str):
        return what == other_what
    # Up to the rounding of the data files, from which terms are computed.
    return what.shape == other_what.shape and bool(np.allclose(what, other_what, rtol=1e-9))


def occam_factor(variant: Variant, other: Variant) -> tuple[list[str], float]:
    """Parameters that a variant does not share with another, and the logarithm of their Occam factor.

    Returns
    -------
    names : list of str
        Their names.
    log_factor : float
        Log ratio of their prior volume to their posterior volume, from the covariances; not negative.
    """
    own = [j for j, definition in enumerate(variant.definitions) if not other.shares(definition)]
    names = [variant.definitions[j][0] for j in own]
    if not own:
        return names, 0.0
    _, log_det = np.linalg.slogdet(np.atleast_2d(np.cov(variant.scaled[:, own], rowvar=False)))
    return names, max(0.0, -0.5 * float(log_det))


def compare_variants(folder, variants: dict[str, dict]) -> dict:
    """Compare the finished fits of a folder; writes ``evidence.json`` and ``evidence.png``.

    Parameters
    ----------
    folder : path
        Folder with a run folder for each variant.
    variants : dict of str to dict
        Settings of each variant by the name of its folder.

    Returns
    -------
    dict
        ``prior``: the assumed prior probabilities of the variants. ``variants``: for each ``settings``, ``logZ``,
        ``logZ_err``, ``delta_logZ`` relative to the largest, ``posterior_probability``, ``D_KL``, ``d_G``, ``chi2``,
        ``dof``, ``p_value``, ``fits`` and ``folder``. ``comparisons`` of the best with each other: ``best``,
        ``other``, ``delta_logZ``, ``delta_logZ_err``, ``own_parameters`` and their ``log_occam_factor``,
        ``within_error`` and ``priors_decide``. ``warnings``: one line each. ``signal``: ``frequency`` in MHz and in
        mK ``mean``, ``median``, ``lo68``, ``hi68``, ``lo95``, ``hi95`` of the signal averaged over the variants; None
        without spectra.

    Notes
    -----
    The priors of the parameters that only one of two variants has decide between them if the difference of the
    evidences is smaller than the log Occam factor of these parameters: the best fit and the volume of the prior then
    push in opposite directions by about as much, or a narrower prior, no narrower than the posterior, would reverse the
    order.
    """
    folder, rng = Path(folder), np.random.default_rng(0)
    runs = {name: read_run(folder / name, trust=True) for name in variants}
    found = {name: Variant.of(run, rng) for name, run in runs.items()}
    logZ = np.array([variant.summary["logZ"] for variant in found.values()])
    chance = np.exp(logZ - logZ.max())
    chance /= chance.sum()
    rows = []
    for (name, variant), log_z, probability in zip(found.items(), logZ, chance):
        summary, fit = variant.summary, variant.summary["fit"]
        rows.append(
            {
                "settings": variants[name],
                "logZ": float(log_z),
                "logZ_err": summary["logZ_err"],
                "delta_logZ": float(log_z - logZ.max()),
                "posterior_probability": float(probability),
                **{key: summary[key] for key in ("D_KL", "d_G")},
                **{key: None if fit is None else fit[key] for key in ("chi2", "dof", "p_value")},
                "fits": None if fit is None else fit["verdict"]["fits"],
                "folder": name,
            }
        )
    comparisons = _comparisons(found, rows)
    frequency, _ = _channels(next(iter(runs.values())))
    result = {
        "prior": f"uniform over {len(rows)} variants",
        "variants": rows,
        "comparisons": comparisons,
        "warnings": _warnings(rows, comparisons),
        "signal": averaged_signal(frequency, found.values(), chance) if len(frequency) else None,
    }
    _draw(result, folder / PICTURE)
    write_text(folder / RESULT, json.dumps(result, indent=2) + "\n")
    return result


def averaged_signal(frequency: np.ndarray, variants, probabilities) -> dict[str, list[float]]:
    """Mean and bands of the signal at frequencies (n,), averaged over variants with their probabilities."""
    variants = list(variants)
    signals = np.concatenate([variant.signals for variant in variants])
    weights = np.repeat(np.asarray(probabilities) / N_DRAWS, N_DRAWS)
    bands = np.array([weighted_quantiles(column, weights, list(BANDS.values())) for column in signals.T])
    mean = (weights @ signals).tolist()
    return {"frequency": frequency.tolist(), "mean": mean, **dict(zip(BANDS, bands.T.tolist()))}


def _comparisons(found, rows):
    """The best variant against each other."""
    best = max(rows, key=lambda row: row["logZ"])
    comparisons = []
    for row in rows:
        if row is best:
            continue
        one, other = found[best["folder"]], found[row["folder"]]
        (names, factor), (others, other_factor) = occam_factor(one, other), occam_factor(other, one)
        difference = best["logZ"] - row["logZ"]
        error = float(np.hypot(best["logZ_err"], row["logZ_err"]))
        comparisons.append(
            {
                "best": best["folder"],
                "other": row["folder"],
                "delta_logZ": difference,
                "delta_logZ_err": error,
                "own_parameters": list(dict.fromkeys([*names, *others])),
                "log_occam_factor": factor + other_factor,
                "within_error": difference < error,
                "priors_decide": difference < factor + other_factor,
            }
        )
    return comparisons


def _warnings(rows, comparisons):
    lines = []
    for c in comparisons:
        pair = f"{c['best']} and {c['other']}"
        if c["within_error"]:
            lines.append(
                f"the evidences of {pair} differ by less than their error ({c['delta_logZ']:.2f} ± "
                f"{c['delta_logZ_err']:.2f}); more live points would tell"
            )
    decided = [c for c in comparisons if c["priors_decide"] and not c["within_error"]]
    for c in decided:
        difference, factor = c["delta_logZ"], c["log_occam_factor"]
        lines.append(
            f"the priors of {', '.join(c['own_parameters'])} decide between {c['best']} and {c['other']}: the "
            f"evidences differ by {difference:.1f}, less than the log Occam factor of these parameters, {factor:.1f}"
        )
    best = max(rows, key=lambda row: row["logZ"])
    if best["fits"] is False:
        lines.append(f"not even the best variant fits: the residuals of {best['folder']} are not noise")
    return lines


@own_style
def _draw(result, path):
    """Evidence of each variant, and the averaged signal."""
    rows, signal = result["variants"], result["signal"]
    figure = plots.new_figure(figsize=(11.0, max(3.5, 1.2 + 0.3 * len(rows))), layout="constrained")
    left, *right = figure.subplots(1, 1 if signal is None else 2, squeeze=False)[0]
    height = np.arange(len(rows))[::-1]
    delta, error = ([row[key] for row in rows] for key in ("delta_logZ", "logZ_err"))
    left.barh(height, delta, xerr=error, color=plots.BLUE, alpha=0.6, height=0.7)
    for y, row in zip(height, rows):
        chance = f"{row['posterior_probability']:.2g}"
        left.text(1.02, y, chance, transform=left.get_yaxis_transform(), va="center", fontsize=9)
    left.set_yticks(height, [row["folder"] for row in rows])
    left.axvline(0.0, color="0.4", lw=0.8)
    left.set_xlabel(r"$\ln Z$ $-$ largest; probability on the right")
    for axis in right:
        nu = np.array(signal["frequency"])
        for (low, high), alpha, label in ((("lo95", "hi95"), 0.25, "95 %"), (("lo68", "hi68"), 0.5, "68 %")):
            axis.fill_between(nu, signal[low], signal[high], color=plots.BLUE, alpha=alpha, lw=0, label=label)
        axis.plot(nu, signal["median"], color=plots.BLUE, lw=1.2, label="median")
        axis.set_xlabel(r"frequency $\nu$ [MHz]")
        axis.set_ylabel("$T_{21}$ [mK], averaged over the variants")
        axis.legend(frameon=False, loc="lower right")
    plots.save(figure, path)
