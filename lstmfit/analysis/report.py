"""Report of a run as one self-contained HTML file: the problem, the fit, its results and their reliability."""

import base64
import hashlib
import logging
import re
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment

from lstmfit import config as run_file
from lstmfit import resolved_run
from lstmfit.analysis import plots
from lstmfit.analysis.bias import bias_file, bias_lines, verdict
from lstmfit.analysis.chains import Run, equal_weight, read_summary
from lstmfit.analysis.goodness import doubts, goodness
from lstmfit.analysis.insertion import SMALL
from lstmfit.analysis.records import Bias, read_figures
from lstmfit.analysis.style import own_style
from lstmfit.analysis.summary import mean_with_error
from lstmfit.errors import one_line
from lstmfit.files import write_text
from lstmfit.likelihoods.base import class_of
from lstmfit.yaml_files import dump_yaml

log = logging.getLogger(__name__)

STYLE = """
body { font: 15px/1.5 Georgia, serif; color: #222; max-width: 860px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em; margin-bottom: 0 } h2 { font-size: 1.2em; margin-top: 1.8em; border-bottom: 1px solid #bbb }
p.sub { color: #666; margin-top: 0 } img { max-width: 100%; max-height: 24cm }
table { border-collapse: collapse; margin: 0.6em 0 }
th, td { padding: 0.15em 0.9em 0.15em 0; text-align: right; border-bottom: 1px solid #e4e4e4 }
th { border-bottom: 1px solid #888 } th:first-child, td:first-child { text-align: left }
pre { font-size: 12px; background: #f6f6f4; padding: 0.8em; white-space: pre-wrap; overflow-wrap: anywhere }
p.verdict { border-left: 4px solid #1f5fa8; padding-left: 0.8em } p.bad { border-color: #c8321e }
@media print { body { max-width: none; margin: 0 } h2, img, table { break-inside: avoid } h2 { break-after: avoid } }
"""

SAMPLER_REFERENCES = {
    "polychord": ["Handley2015a", "Handley2015b", "Fowlie2020"],
    "nautilus": ["Lange2023"],
    "blackjax": ["Yallup2026", "Cabezas2024", "Fowlie2020"],
}


def write_report(run: Run, path=None) -> Path:
    """Write the report of a finished run.

    Parameters
    ----------
    run : Run
        The run.
    path : path, optional
        HTML file; ``report.html`` in the run's folder by default.

    Returns
    -------
    pathlib.Path
        The file. It is self-contained, and nothing is loaded from the network.

    Raises
    ------
    InputError
        The run has no summary yet, or one of its files is damaged.

    Notes
    -----
    A run folder may come from an untrusted source. So the template escapes every value, plots are drawn again rather
    than read from the folder, and the page's content security policy forbids scripts and external resources.
    """
    summary = read_summary(run.folder)
    config = run_file.load(run.folder / "run.yaml")
    bias = bias_file(run.folder)
    measured = read_figures(bias, Bias, "measure it again with lstmfit bias") if bias.is_file() else None
    found = goodness(run)
    name = one_line(run.folder.resolve().name, 200)
    content = {
        "name": name,
        "source": f"{run.problem.signal.name}, {run.problem.n_channels} channels, {summary['sampler']}",
        "style": STYLE,
        "style_hash": f"sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}",
        "doubts": doubts(found),
        "summary": summary,
        "small_p": SMALL,
        "parameters": _parameters(summary, run),
        "signal": run.problem.signal.name,
        "bias": _bias(measured, run),
        "pictures": {
            "corner": _drawn("corner", run),
            "signal": _drawn("signal", run),
        },
        "verdict": None if found["fit"] is None else found["fit"]["verdict"],
        "spectra": [_spectrum(name, found["fit"]["spectra"][name], config, run) for name in run.problem.spectra],
        "others": dump_yaml(config.others) if config.others else "",
        "provenance": _provenance(config, summary),
        "references": bibliography(config, run, measured),
        "run_file": (run.folder / "run.yaml").read_text(encoding="utf-8"),
    }
    template = (resources.files("lstmfit.analysis") / "report.html").read_text(encoding="utf-8")
    text = Environment(autoescape=True).from_string(template).render(content)
    path = run.folder / "report.html" if path is None else Path(path)
    # A file name may contain bytes that are not valid text.
    write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))
    return path


def _drawn(name, run) -> str:
    """Draw a plot of the run and return it as base64; empty if that fails, because the report can do without it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.png"
        try:
            getattr(plots, name)(run, path)
        except Exception as error:
            log.warning("%s could not be drawn (%s: %s)", name, type(error).__name__, one_line(error))
            return ""
        return base64.b64encode(path.read_bytes()).decode()


def _parameters(summary, run):
    rows = []
    for name, p in summary["parameters"].items():
        truth = "" if p["truth"] is None else f"{p['truth']:.4g}"
        label = f"log10 {name}" if p["log10"] else name
        interval = f"{p['lo68']:.4g} .. {p['hi68']:.4g}"
        rows.append((label, mean_with_error(p), f"{p['std']:.2g}", f"{p['median']:.4g}", interval, truth))
    columns = ["parameter", "mean ± its error", "std", "median", "68 %", "truth" if run.problem.truth else ""]
    return {"columns": columns, "rows": rows}


def _spectrum(name, figures, config, run):
    """Content of the template's section on a spectrum."""
    text, picture = _residuals(run, name)
    block = config.likelihood[name]
    return {
        "name": name,
        "tests": _tests(name, figures),
        "residuals": text,
        "picture": picture,
        "options": dump_yaml(block if isinstance(block, dict) else block.model_dump(exclude_none=True, by_alias=True)),
        "coefficients": _coefficients(run, name),
    }


def _residuals(run, name):
    """Sentence about the residuals of the posterior-mean model of a spectrum, and their plot as base64."""
    problem, rng = run.problem, np.random.default_rng(0)
    theta, likelihood = equal_weight(run, 200, rng), problem.spectra[name]
    spectrum = likelihood.spectrum
    models = [likelihood.sky(problem.signal_at(t), problem.values(t, name)) for t in theta]
    residual = spectrum.temperature - np.mean(models, axis=0)
    text = f"Rms residual {np.sqrt(np.mean(residual**2)):.2f} mK."
    return text, _residual_picture(spectrum.frequency, residual)


@own_style
def _residual_picture(frequency, residual) -> str:
    figure = plots.new_figure(figsize=(8.0, 3.0), layout="constrained")
    axis = figure.subplots()
    axis.plot(frequency, residual, ".", color=plots.GREY, ms=3)
    axis.axhline(0.0, color=plots.BLUE, lw=1)
    axis.set_xlabel(r"frequency $\nu$ [MHz]")
    axis.set_ylabel("data $-$ mean model [mK]")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "residuals.png"
        plots.save(figure, path)
        return base64.b64encode(path.read_bytes()).decode()


def _tests(name, figures):
    """Table of the tests of a spectrum's residuals."""
    noise, correlation, runs = (figures[key] for key in ("fitted_noise_mK", "autocorrelation", "runs"))
    outlier = figures["largest_outlier"]
    dof = "none" if figures["dof"] is None else f"{figures['dof']:.1f}"
    fitted = "" if noise is None else f", for a fitted noise of {noise:.4g} mK"
    chi2 = f"{figures['chi2']:.1f} for {dof} degrees of freedom{fitted}"
    rows = [
        ("chi-square of the best point", chi2, figures["p_value"]),
        ("posterior prediction of chi-square", "", figures["posterior_predictive_p"]),
    ]
    if correlation is not None:
        what = f"{correlation['lag_1']:+.2f} between neighbours; Ljung-Box {correlation['ljung_box']:.1f}"
        rows.append(("correlation of the residuals", f"{what} over {correlation['lags']} lags", correlation["p_value"]))
        rows.append(("runs of one sign", f"{runs['n']}, {runs['expected']:.1f} expected", runs["p_value"]))
    far = f"{outlier['sigma']:+.1f} sigma at {outlier['frequency']:.4g} MHz"
    rows.append(("largest outlier", far, outlier["p_value"]))
    cells = [(what, figure, "" if p is None else f"{p:.2g}") for what, figure, p in rows]
    return {"columns": (f"residuals of {name}", "", "p-value"), "rows": cells}


def _coefficients(run, name):
    """Marginalised coefficients of a spectrum's foreground: name, mean and standard deviation of posterior draws."""
    problem, likelihood = run.problem, run.problem.spectra[name]
    if likelihood.n_marginalised == 0:
        return []
    rng = np.random.default_rng(0)
    theta = equal_weight(run, 200, rng)
    draws = [likelihood.coefficients(problem.signal_at(t), problem.values(t, name), rng) for t in theta]
    mean, std = np.mean(draws, axis=0), np.std(draws, axis=0)
    return [(name, f"{m:.6g}", f"{s:.2g}") for name, m, s in zip(likelihood.marginalised.names, mean, std)]


def _bias(measured, run):
    """Content of the template's section on the emulation bias; None if the signal is not emulated."""
    if run.problem.signal.emulator is None:
        return None
    if measured is None:
        return {"measured": False, "command": f"lstmfit bias {run.folder}"}
    # Compute the verdict again, because earlier versions may have trusted a result that is not trusted now.
    judged = verdict(measured)
    rows = [
        (
            name,
            f"{p['shift']:+.3f} ± {p['bias_err']:.3f}",
            f"{p['std_ratio']:.3f}",
            "" if p["true_bias"] is None else f"{p['true_bias']:.2f}",
        )
        for name, p in measured["parameters"].items()
    ]
    lines = bias_lines(measured | {"verdict": judged})[:-1]
    return {
        "measured": True,
        "trusted": judged["trusted"],
        "verdict": judged["text"],
        "truth": measured["truth"],
        "columns": ("parameter", "emulated − true [sigma]", "width ratio", "true bias [sigma]"),
        "rows": rows,
        "lines": [line.replace("   ", "; ") for line in lines],
    }


def _provenance(config, summary):
    made = resolved_run.record(config)
    rows = [("signal", made.signal), ("checksum or version of the signal", made.signal_checksum)]
    rows += list(made.versions.items())
    rows += [("seed of the sampler", config.sampler.settings.seed)]
    for name, data in config.data.items():
        if data.mock is not None:
            of = f" of {name}" if len(config.data) > 1 else ""
            rows.append((f"seed of the mock's noise{of}", data.mock.seed))
    return [*rows, ("parallel runs or ranks", summary["ranks"]), ("created", made.created)]


def bibliography(config, run: Run, measured: dict | None = None) -> str:
    """BibTeX entries for all components of a run: emulator, simulator, sampler, likelihoods, foregrounds, bias."""
    own = _entries((resources.files("lstmfit.analysis") / "references.bib").read_text(encoding="utf-8"))
    keys = [*SAMPLER_REFERENCES[config.sampler.name], "Handley2019"]
    emulator = run.problem.signal.emulator
    simulator = run.problem.signal.name if emulator is None else emulator.record.get("simulator")
    if emulator is not None:
        keys.append("DorigoJones2024")
    if simulator == "echo21":
        keys.append("Mittal2026")
    if measured is not None:
        keys += ["DorigoJones2023", "Bevins2025", "Vehtari2024"]
    entries = {key: own[key] for key in keys}
    blocks = config.spectrum_blocks.items()
    files = [class_of(name, block) for name, block in blocks]
    if config.signal or any(block.foreground is not None for _, block in blocks):
        files.append("foregrounds")
    for name in (class_of(*item) for item in config.others.items()):
        files += [name, "uvlf"] if name.startswith("uvlf") else [name]
    for name in files:
        file = resources.files("lstmfit.likelihoods") / f"{name}.bib"
        if file.is_file():
            entries |= _entries(file.read_text(encoding="utf-8"))
    return "\n".join(entries.values())


def _entries(text):
    """BibTeX entries by key; each starts with @ at the beginning of a line."""
    found = (entry.strip() for entry in re.split(r"^(?=@)", text, flags=re.MULTILINE))
    return {re.match(r"@\w+\{([^,]+),", entry)[1]: entry for entry in found if entry}
