"""The bias study of docs/results/bias.md: fits, bias against ECHO21, comparison with direct fits, table, figures.

    python benchmarks/bias_study.py [WORK]

Repeat it after the shipped emulator has changed: fits of another emulator are repeated, simulated points are reused
where they fit. The table in docs/results/bias.md between the marks `<!-- study -->` is replaced.
"""

import gzip
import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from anesthetic import read_chains
from pages import IMAGES, RESULTS, TOP, replace_in_page

from lstmfit.analysis.bias import bias_between, measure_bias, write_bias
from lstmfit.analysis.chains import Run, read_run
from lstmfit.analysis.forecast import forecast
from lstmfit.analysis.plots import BLUE, GREY, RED, new_figure, save
from lstmfit.driver import fit, load_problem
from lstmfit.emulator.emulator import shipped_test_set
from lstmfit.errors import InputError

NOISE = (5, 10, 25, 50)
BEVINS = {"D_KL": {5: 0.25, 25: 0.05, 50: 0.09, 250: 0.08}, "bound": {5: 9.60, 25: 0.38, 50: 0.10, 250: 0.004}}
"""globalemu against ARES, Bevins et al. 2025: measured by normalising flows, and the bound at their mean error."""
BEVINS_BIAS = {5: 0.69}


def finished_run(folder: Path, name: str) -> Run:
    """Run of the shipped emulator in `folder`, fitted if it is missing or from a different emulator."""
    try:
        problem = load_problem(folder)
        return read_run(folder, problem=problem)
    except InputError as error:
        logging.info("%s: %s", name, error)
    folder = fit(name, folder, force=True)
    return read_run(folder)


def direct_run(folder: Path, target: Path) -> Run:
    """Unpack a committed direct fit."""
    for file in folder.iterdir():
        if file.suffix == ".gz":
            (target / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        else:
            shutil.copy(file, target / file.name)
    return Run(folder, read_chains(str(target / "chain")), load_problem(target))


def study(work: Path) -> dict:
    """All measurements, by noise in mK."""
    results = {}
    for noise in NOISE:
        run = finished_run(work / f"mock_{noise}mK", f"mock_{noise}mK")
        emulator = run.problem.signal.emulator
        print(f"{noise} mK: simulating at the posterior points", flush=True)
        measured = measure_bias(run, n=100_000)
        write_bias(run.folder, measured)
        entry = {
            "bias": measured,
            "bias_500": measure_bias(run, n=500),
            "forecast": forecast(run.problem, shipped_test_set("echo21"), float(noise)),
            "summary": json.loads((run.folder / "summary.json").read_text()),
        }
        committed = TOP / "tests" / "data" / f"direct_{noise}mK"
        if committed.is_dir():
            with tempfile.TemporaryDirectory() as target:
                entry["direct"] = bias_between(run, direct_run(committed, Path(target)))
            # The path in the repository, not the temporary folder that it was unpacked into.
            entry["direct"]["truth"] = committed.relative_to(TOP).as_posix()
        results[noise] = entry
    return {
        "emulator": {"checksum": emulator.checksum, **emulator.record["test"]},
        "noise": {str(noise): entry for noise, entry in results.items()},
    }


def table(results: dict) -> str:
    """Results of the study as Markdown."""
    e = results["emulator"]
    lines = [
        f"Emulator `{e['checksum'][:12]}`, mean error {e['mean_percent']:.3f} % = {e['mean_mK']:.3f} mK on "
        f"{e['n']} test signals (95 %: {e['p95_mK']:.3f} mK). Noise seed 2, PolyChord seed 1, every posterior point "
        "simulated.",
        "",
        "| noise [mK] | mean bias [σ] | largest bias [σ] | D_KL [nat] | bound, mean / 95 % error "
        "| linear estimate, mean / 95th percentile | ln Z true − emulated | k-hat | signal rms 68 % [mK] |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for noise, entry in results["noise"].items():
        b, f = entry["bias"], entry["forecast"]
        name, worst = max(b["parameters"].items(), key=lambda item: item[1]["bias"])
        lines.append(
            f"| {noise} | {b['mean_bias']:.3f} | {worst['bias']:.3f} ± {worst['bias_err']:.3f} ({name}) "
            f"| {b['D_KL']:.4f} ± {b['D_KL_err']:.4f} | {f['D_KL_bound_mean']:.4f} / {f['D_KL_bound_p95']:.4f} "
            f"| {f['D_KL_linear_mean']:.4f} / {f['D_KL_linear_p95']:.4f} | {b['dlogZ']:+.3f} ± {b['dlogZ_err']:.3f} "
            f"| {b['khat']:.2f} | {b['signal_rms_mK']['emulated_68']:.2f} |"
        )
    lines += ["", "| noise [mK] | parameter | all points | 500 points | direct fit | two chains | true bias |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for noise, entry in results["noise"].items():
        direct = entry.get("direct")
        for name in entry["bias"]["parameters"]:
            cells = [entry["bias"]["parameters"][name], entry["bias_500"]["parameters"][name]]
            cells += [direct["parameters"][name], direct["chains"]["parameters"][name]] if direct else [None, None]
            shown = ["" if p is None else f"{p['shift']:+.3f} ± {p['bias_err']:.3f}" for p in cells]
            lines.append(f"| {noise} | {name} | {' | '.join(shown)} | {cells[0]['true_bias']:.2f} |")
    lines += ["", "| noise [mK] | D_KL, all points | 500 points | direct fit | ln Z true − emulated, all | direct |"]
    lines += ["|---|---|---|---|---|---|"]
    for noise, entry in results["noise"].items():
        parts = [entry["bias"], entry["bias_500"], entry.get("direct")]
        d_kl = ["" if p is None else f"{p['D_KL']:.4f} ± {p['D_KL_err']:.4f}" for p in parts]
        logz = ["" if p is None else f"{p['dlogZ']:+.3f} ± {p['dlogZ_err']:.3f}" for p in (parts[0], parts[2])]
        lines.append(f"| {noise} | {' | '.join(d_kl)} | {' | '.join(logz)} |")
    return "\n".join(lines)


def picture(results: dict, path: Path):
    """Plot the bias by parameter and the divergence against noise."""
    noise = np.array([float(n) for n in results["noise"]])
    entries = list(results["noise"].values())
    figure = new_figure(figsize=(10.0, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(entries[0]["bias"]["parameters"])
    for i, name in enumerate(names):
        p = [e["bias"]["parameters"][name] for e in entries]
        offset = 1.0 + 0.02 * (i - 3)
        left.errorbar(
            noise * offset, [q["bias"] for q in p], [q["bias_err"] for q in p], fmt="os^vDPX"[i % 7], ms=5, label=name
        )
    left.plot(list(BEVINS_BIAS), list(BEVINS_BIAS.values()), "*", color=GREY, ms=12, label="globalemu, T_min (B25)")
    left.axhline(0.1, color=GREY, lw=0.8, ls=":")
    left.set(xscale="log", yscale="log", xlabel="noise [mK]", ylabel=r"emulation bias [$\sigma$]", ylim=(5e-4, 1.5))
    left.legend(frameon=False, fontsize=8, ncols=2)
    measured = [e["bias"] for e in entries]
    right.errorbar(
        noise, [m["D_KL"] for m in measured], [m["D_KL_err"] for m in measured], fmt="o", color=BLUE, label="measured"
    )
    direct = [(n, e["direct"]) for n, e in zip(noise, entries) if "direct" in e]
    if direct:
        right.errorbar(
            [n * 1.06 for n, _ in direct], [d["D_KL"] for _, d in direct], [d["D_KL_err"] for _, d in direct],
            fmt="s", mfc="none", color=RED, label="from the direct fit",
        )  # fmt: skip
    f = [e["forecast"] for e in entries]
    for key, style, what in (("bound", "-", "bound"), ("linear", "--", "linear")):
        right.plot(noise, [x[f"D_KL_{key}_mean"] for x in f], style, color=BLUE, lw=1, label=f"{what}, mean and 95 %")
        right.plot(noise, [x[f"D_KL_{key}_p95"] for x in f], style, color=BLUE, lw=0.6)
    for key, marker, what in (("D_KL", "*", "globalemu, measured (B25)"), ("bound", "_", "globalemu, bound (B25)")):
        at = [n for n in BEVINS[key] if n <= 50]
        right.plot(at, [BEVINS[key][n] for n in at], marker, color=GREY, ms=10, label=what)
    right.set(xscale="log", yscale="log", xlabel="noise [mK]", ylabel=r"$D_\mathrm{KL}$(true || emulated) [nat]")
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.set_xticks([5, 10, 25, 50], ["5", "10", "25", "50"])
        axis.minorticks_off()
    save(figure, path)


def main():
    """Run the study and write it to the docs."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    work = Path(sys.argv[1] if len(sys.argv) > 1 else "chains/bias_study")
    results = study(work)
    (RESULTS / "bias_study.json").write_text(json.dumps(results, indent=1) + "\n")
    picture(results, IMAGES / "bias_noise.png")
    replace_in_page("bias.md", "study", table(results))


if __name__ == "__main__":
    main()
