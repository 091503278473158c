"""One self-contained HTML file about a run: what was fitted, how, the answer, and whether to believe it."""

import base64
import html
import re
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
import yaml

from lstmfit import config as run_file
from lstmfit.analysis import plots
from lstmfit.analysis.bias import bias_file, bias_lines
from lstmfit.analysis.chains import Run, equal_weight, read_figures, read_summary
from lstmfit.analysis.insertion import SMALL
from lstmfit.files import write_text
from lstmfit.likelihoods.foregrounds import LINEAR
from lstmfit.likelihoods.gaussian import GaussianNoise
from lstmfit.mock import make_noise

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
        The file: no other file is needed to read it, and nothing is loaded from anywhere.

    Raises
    ------
    InputError
        The run has no summary yet, or a file of it is damaged.
    """
    summary = read_summary(run.folder)
    config = run_file.load(run.folder / "run.yaml")
    bias = bias_file(run.folder)
    again = "measure it again with lstmfit bias"
    measured = read_figures(bias, ("parameters", "truth", "verdict"), again) if bias.is_file() else None
    sections = [
        ("Evidence", _evidence(summary)),
        ("Parameters", _parameters(summary, run)),
        ("Emulation bias", _bias(measured, run)),
        ("Posterior", _image(run, "corner")),
        ("Signal", _image(run, "signal")),
        ("Data and residuals", _chi_square(config, run) + _residuals(run)),
        ("Noise and foreground", _noise(config, run)),
        ("How it was made", _provenance(config, summary)),
        ("References", _folded("BibTeX of what was used", bibliography(config, run, measured))),
        ("Run file", _folded("run.yaml, with every default", _run_text(run))),
    ]
    name = html.escape(run.folder.resolve().name)
    source = f"{run.problem.signal.name}, {len(run.problem.spectrum.frequency)} channels, {summary['sampler']}"
    body = "".join(f"<h2>{title}</h2>\n{content}\n" for title, content in sections)
    text = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style>'
        f'</head>\n<body>\n<h1>{name}</h1>\n<p class="sub">{html.escape(source)}</p>\n{body}</body></html>\n'
    )
    path = run.folder / "report.html" if path is None else Path(path)
    write_text(path, text)
    return path


def _folded(title, text):
    """Long text that is closed on the screen, and so not printed unless it has been opened."""
    return f"<details><summary>{title}</summary><pre>{html.escape(text)}</pre></details>"


def _table(columns, rows):
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    lines = ("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _picture(path, alt):
    content = base64.b64encode(Path(path).read_bytes()).decode()
    return f'<img alt="{alt}" src="data:image/png;base64,{content}">'


def _image(run, name):
    path = run.folder / f"{name}.png"
    if not path.is_file():
        getattr(plots, name)(run, path)
    return _picture(path, name)


def _evidence(summary):
    minutes = summary["wall_s"] / 60.0
    return (
        f"<p>ln Z = {summary['logZ']:.2f} ± {summary['logZ_err']:.2f}, "
        f"D<sub>KL</sub>(posterior || prior) = {summary['D_KL']:.2f} nat, "
        f"Bayesian dimensionality {summary['d_G']:.2f}. "
        f"{summary['n_like']:,} likelihood calls with {summary['n_live']} live points in {minutes:.1f} minutes."
        f"{_insertion(summary.get('insertion_p'))}</p>"
    )


def _insertion(p):
    if p is None:
        return ""
    text = f" Insertion-index test of the sampling: p = {p:.2g}"
    return f"{text}." if p > SMALL else f"{text}, <strong>so small that neither is to be trusted</strong>."


def _parameters(summary, run):
    rows = []
    for name, p in summary["parameters"].items():
        truth = "" if p["truth"] is None else f"{p['truth']:.4g}"
        label = f"log10 {name}" if p.get("log10") else name
        interval = f"{p['lo68']:.4g} .. {p['hi68']:.4g}"
        rows.append((label, f"{p['mean']:.4g}", f"{p['std']:.2g}", f"{p['median']:.4g}", interval, truth))
    columns = ["parameter", "mean", "std", "median", "68 %"] + (["truth"] if run.problem.truth else [""])
    return _table(columns, rows)


def _residuals(run):
    """Data minus posterior-mean model, and its size in units of the noise where that is known."""
    problem, rng = run.problem, np.random.default_rng(0)
    theta = equal_weight(run, 200, rng)
    spectrum, likelihood = problem.spectrum, problem.likelihood
    models = []
    for t in theta:
        signal = np.array(problem.signal(problem.signal_parameters(t)), dtype=float)
        own = np.array(problem.values(t))
        total = likelihood.foreground(signal, own)
        models.append(total + _on_channels(problem, signal))
    residual = spectrum.temperature - np.mean(models, axis=0)
    figure = plots.new_figure(figsize=(8.0, 3.0), layout="constrained")
    axis = figure.subplots()
    axis.plot(spectrum.frequency, residual, ".", color=plots.GREY, ms=3)
    axis.axhline(0.0, color=plots.BLUE, lw=1)
    axis.set_xlabel(r"frequency $\nu$ [MHz]")
    axis.set_ylabel("data $-$ mean model [mK]")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "residuals.png"
        plots.save(figure, path)
        picture = _picture(path, "residuals")
    order = np.argsort(spectrum.frequency)
    r = residual[order]
    neighbours = float(np.corrcoef(r[:-1], r[1:])[0, 1]) if len(r) > 2 and r.std() > 0 else 0.0
    sigma = 1.0 / np.sqrt(max(len(r) - 1, 1))
    return (
        f"<p>rms of the residual {np.sqrt(np.mean(residual**2)):.2f} mK; correlation of neighbouring channels "
        f"{neighbours:+.2f} (± {sigma:.2f} for white noise).</p>{picture}"
    )


def _chi_square(config, run):
    """Chi-square of the best sample by the noise alone, without the emulator's error; none for Student-t noise."""
    problem, block = run.problem, config.likelihood.global_signal.noise
    spectrum = problem.spectrum
    noise = make_noise(block, spectrum.frequency, spectrum.temperature, spectrum.weight)
    if noise.student:
        return ""
    best = run.samples.iloc[int(np.argmax(run.samples["logL"].to_numpy()))]
    theta = best[list(problem.names)].to_numpy(dtype=float)
    signal, own = np.array(problem.signal(problem.signal_parameters(theta)), dtype=float), problem.values(theta)
    model = problem.likelihood.foreground(signal, own) + _on_channels(problem, signal)
    sigma = float(own[0]) if noise.sigma is None else noise.sigma
    density = GaussianNoise(spectrum.weight, noise.extra)
    # The normalisation goes out, whatever the covariance.
    chi2 = 2.0 * (density.logpdf(np.zeros(len(model)), sigma) - density.logpdf(spectrum.temperature - model, sigma))
    n_fitted = len(problem.names)
    if _is_marginalised(config.likelihood.global_signal.foreground):
        n_fitted += len(problem.likelihood.coefficients(signal, own))
    left = len(model) - n_fitted
    ratio = f" = {chi2 / left:.2f} a degree of freedom" if left > 0 else ""
    free = f" (its {noise.name} fitted: {sigma:.4g} mK)" if noise.sigma is None else ""
    return (
        f"<p>Best sample: chi-square {chi2:.1f} by the {block.model} noise{free} for {len(model)} channels less "
        f"{n_fitted} fitted parameters{ratio}.</p>"
    )


def _is_marginalised(foreground):
    return foreground is not None and foreground.model in LINEAR and foreground.marginalise is not False


def _on_channels(problem, signal):
    from lstmfit.likelihoods.global_signal import interpolation_matrix

    matrix = interpolation_matrix(problem.signal.redshifts, problem.spectrum.frequency)
    return signal if matrix is None else matrix @ signal


def _noise(config, run):
    block = config.likelihood.global_signal
    text = yaml.safe_dump(block.model_dump(exclude_none=True), sort_keys=False)
    out = f"<pre>{html.escape(text)}</pre>"
    if _is_marginalised(block.foreground):
        rng, problem = np.random.default_rng(0), run.problem
        draws = []
        for t in equal_weight(run, 200, rng):
            signal = np.array(problem.signal(problem.signal_parameters(t)), dtype=float)
            draws.append(problem.likelihood.coefficients(signal, np.array(problem.values(t)), rng))
        mean, std = np.mean(draws, axis=0), np.std(draws, axis=0)
        rows = [(f"a{i}", f"{m:.6g}", f"{s:.2g}") for i, (m, s) in enumerate(zip(mean, std))]
        out += "<p>Marginalised coefficients, given back:</p>" + _table(("coefficient [K]", "mean", "std"), rows)
    others = config.likelihood.others
    if others:
        out += f"<p>Further likelihoods:</p><pre>{html.escape(yaml.safe_dump(others, sort_keys=False))}</pre>"
    return out


def _bias(measured, run):
    if run.problem.signal.emulator is None:
        return f"<p>None: the signal is {html.escape(run.problem.signal.name)} itself.</p>"
    if measured is None:
        command = html.escape(f"lstmfit bias {run.folder}")
        return f'<p class="verdict bad">Not measured. Type <code>{command}</code> and make this report again.</p>'
    rows = [
        (
            name,
            f"{p['shift']:+.3f} ± {p['bias_err']:.3f}",
            f"{p['std_ratio']:.3f}",
            "" if p["true_bias"] is None else f"{p['true_bias']:.2f}",
        )
        for name, p in measured["parameters"].items()
    ]
    table = _table(("parameter", "emulated − true [sigma]", "width ratio", "true bias [sigma]"), rows)
    *lines, verdict = (html.escape(line.replace("   ", "; ")) for line in bias_lines(measured))
    kind = "verdict" if measured["verdict"]["trusted"] else "verdict bad"
    intro = f"<p>Against {html.escape(measured['truth'])}, by importance weights, in the space of the prior.</p>"
    return f'<p class="{kind}">{verdict}</p>{intro}{table}<p>{"<br>".join(lines)}</p>'


def _provenance(config, summary):
    resolved = config.resolved or {}
    rows = [("signal", resolved.get("signal", "")), ("its checksum or version", resolved.get("signal_checksum", ""))]
    rows += [(package, version) for package, version in resolved.get("versions", {}).items()]
    rows += [("sampler's seed", config.sampler.block.seed)]
    if config.data.mock is not None:
        rows.append(("mock's noise seed", config.data.mock.seed))
    rows += [("parallel runs or ranks", summary["ranks"]), ("created", resolved.get("created", ""))]
    return _table(("", ""), rows)


def _run_text(run):
    return (run.folder / "run.yaml").read_text(encoding="utf-8")


def bibliography(config, run: Run, measured: dict | None = None) -> str:
    """BibTeX of every component that a run used: emulator, simulator, sampler, likelihoods, foregrounds, bias."""
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
    block = config.likelihood.global_signal
    files = ["global_signal"] + (["foregrounds"] if block.foreground is not None or config.signal else [])
    for name in config.likelihood.others:
        files += [name, "uvlf"] if name.startswith("uvlf") else [name]
    for name in files:
        file = resources.files("lstmfit.likelihoods") / f"{name}.bib"
        if file.is_file():
            entries |= _entries(file.read_text(encoding="utf-8"))
    return "\n".join(entries.values())


def _entries(text):
    """BibTeX entries by key; each begins with @ at the start of a line."""
    found = (entry.strip() for entry in re.split(r"^(?=@)", text, flags=re.MULTILINE))
    return {re.match(r"@\w+\{([^,]+),", entry)[1]: entry for entry in found if entry}
