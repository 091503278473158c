"""Repeat the published fits of 21cmGEM and ARES, and measure the emulation bias between emulators of the same model.

    python benchmarks/dj24_study.py --published FOLDER [-o WORK] [--models 21cmgem ares] [--noise 25 10 5]

FOLDER has the published weights: 21cmKAN/emulator_21cmGEM.pth, 21cmKAN/emulator_ARES.pth, globalemu/T_release. The data
are the signal of 21cmKAN at the fiducial parameters of Dorigo Jones et al. (2024) plus white noise drawn with its
authors' method: standard normal numbers of NumPy's legacy generator with seed 2, the same for all noise levels, here in
ascending redshift. Each data set is fitted with 21cmKAN itself, with the shipped emulator and, for 21cmGEM, with
globalemu; finished fits in WORK are reused. Writes docs/results/dj24.json, the figure, and the tables
of docs/results/dj24.md.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from pages import IMAGES, RESULTS, replace_in_page

from lstmfit import Emulator
from lstmfit.analysis.bias import measure_bias
from lstmfit.analysis.chains import read_run
from lstmfit.analysis.plots import BLUE, GREY, RED, new_figure, save
from lstmfit.config import load, shipped_runs
from lstmfit.constants import redshift_to_frequency
from lstmfit.driver import fit
from lstmfit.errors import InputError

LABELS = {"21cmgem": "21cmGEM", "ares": "ARES"}
STORED = {
    "21cmgem": {
        5: {"fstar": (-0.833, 0.011), "Vc": (1.100, 0.036), "fX": (-0.947, 0.247), "tau": (0.0643, 0.0022),
            "alpha": (1.243, 0.149), "nu_min": (0.504, 0.265), "Rmfp": (30.9, 11.5)},
        10: {"fstar": (-1.205, 0.069), "Vc": (1.903, 0.015), "fX": (-3.14, 1.73), "tau": (0.0689, 0.0005),
             "alpha": (1.253, 0.144), "nu_min": (1.665, 0.851), "Rmfp": (34.6, 5.0)},
        25: {"fstar": (-1.804, 0.116), "Vc": (1.667, 0.037), "fX": (-3.29, 1.65), "tau": (0.0763, 0.0010),
             "alpha": (1.250, 0.142), "nu_min": (1.658, 0.818), "Rmfp": (33.5, 8.8)},
    },
    "ares": {
        5: {"c_X": (39.391, 0.129), "f_esc": (0.173, 0.030), "T_min": (4.007, 0.064), "logN": (19.97, 1.19),
            "f_star": (-0.800, 0.517), "M_p": (12.43, 1.11), "gamma_lo": (0.501, 0.058), "gamma_hi": (-2.07, 1.10)},
        10: {"c_X": (39.401, 0.145), "f_esc": (0.165, 0.056), "T_min": (3.962, 0.206), "logN": (20.12, 1.19),
             "f_star": (-1.018, 0.582), "M_p": (11.83, 1.29), "gamma_lo": (0.548, 0.146), "gamma_hi": (-1.97, 1.11)},
        25: {"c_X": (39.351, 0.240), "f_esc": (0.206, 0.124), "T_min": (3.858, 0.465), "logN": (20.20, 1.26),
             "f_star": (-1.426, 0.549), "M_p": (11.01, 1.65), "gamma_lo": (0.685, 0.396), "gamma_hi": (-2.01, 1.10)},
    },
}  # fmt: skip
"""Mean and standard deviation of the posteriors distributed with 21cmKAN (MultiNest; data from 21cmGEM and ARES)."""
STORED_LOGZ = {"21cmgem": {5: -256.53, 10: -253.30, 25: -250.78}, "ares": {5: -258.52, 10: -254.91, 25: -250.71}}
"""Log-evidences of the same fits, without the normalisation of the likelihood."""


def observe(teacher: Emulator, theta, noise: float, path: Path) -> None:
    """Write the mock spectrum as a CSV file in mK."""
    drawn = np.random.RandomState(2).normal(size=len(teacher.redshifts)) * noise
    table = np.column_stack([redshift_to_frequency(teacher.redshifts), teacher(theta) + drawn])
    np.savetxt(path, table, delimiter=",", header="frequency [MHz],temperature [mK]", comments="")


def finished(content: dict, folder: Path):
    """Finished run of a run file in a folder; the fit is only run if it does not exist."""
    try:
        return read_run(folder)
    except InputError:
        fit(content, folder, force=True)
        return read_run(folder)


def study(published: Path, work: Path, models, noises) -> dict:
    """Run all fits and comparisons; returns the results by set and noise level."""
    results = {}
    for name in models:
        label = LABELS[name]
        kan = str(published / "21cmKAN" / f"emulator_{label}.pth")
        emulators = {"21cmKAN": kan, "shipped": name}
        if name == "21cmgem":
            emulators["globalemu"] = str(published / "globalemu" / "T_release")
        for noise in noises:
            run_file = load(shipped_runs()[f"dj24_{name}_{noise}mK"]).model_dump(by_alias=True, exclude_none=True)
            data = work / f"{name}_{noise}mK.csv"
            teacher, theta = Emulator.load(kan), run_file["data"]["mock"]["theta"]
            observe(teacher, theta, noise, data)
            run_file["data"] = {"file": str(data), "unit": "mK", "columns": {"frequency": 0, "temperature": 1}}
            runs = {
                which: finished(run_file | {"emulator": source}, work / f"{name}_{noise}mK_{which}")
                for which, source in emulators.items()
            }
            entry = {"stored": STORED[name][noise], "stored_logZ": STORED_LOGZ[name][noise]}
            results[f"{name}_{noise}mK"] = entry
            for which, run in runs.items():
                kept = ("logZ", "logZ_err", "n_like", "wall_s", "parameters")
                entry[which] = {key: run.summary[key] for key in kept}
                if which != "21cmKAN":
                    ours = run.problem.signal.emulator
                    entry[which]["rms_mK"] = float(np.sqrt(np.mean((ours(theta) - teacher(theta)) ** 2)))
                    measured = measure_bias(run, kan)
                    keys = ("parameters", "D_KL", "D_KL_err", "khat", "ess", "n", "verdict", "signal_rms_mK")
                    entry[which]["bias"] = {key: measured[key] for key in keys}
            print(name, noise, "done", flush=True)
    return results


def posterior_table(results: dict) -> str:
    """Tables of the mean and standard deviation of each parameter, stored and from each fit."""
    lines = []
    for name, entry in results.items():
        emulators = [which for which in ("21cmKAN", "shipped", "globalemu") if which in entry]
        names = list(entry["stored"])
        lines += [f"**{name.replace('_', ', ')}**", "", f"| | {' | '.join(names)} | logZ |"]
        lines.append(f"|---{'|---' * len(names)}|---|")
        stored = [_value(*entry["stored"][p]) for p in names]
        lines.append(f"| stored (21cmKAN, MultiNest) | {' | '.join(stored)} | {entry['stored_logZ']:.2f} |")
        for which in emulators:
            fitted = entry[which]["parameters"]
            values = [_value(fitted[p]["mean"], fitted[p]["std"]) for p in names]
            logZ = entry[which]["logZ"] + _normalisation(name)
            lines.append(f"| {which} | {' | '.join(values)} | {logZ:.2f} ± {entry[which]['logZ_err']:.2f} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def bias_table(results: dict) -> str:
    """Table of emulation biases relative to 21cmKAN: largest shift of a mean (by reweighting, between fits), D_KL."""
    head = (
        "data",
        "emulator",
        "rms error of the signal [mK]",
        "largest shift (reweighted)",
        "(two fits)",
        "D_KL [nat]",
    )
    lines = [f"| {' | '.join(head)} |", f"{'|---' * len(head)}|"]
    for name, entry in results.items():
        for which in ("shipped", "globalemu"):
            if which not in entry:
                continue
            bias, truth = entry[which]["bias"], entry["21cmKAN"]["parameters"]
            shifts = {p: (entry[which]["parameters"][p]["mean"] - t["mean"]) / t["std"] for p, t in truth.items()}
            worst = max(shifts, key=lambda p: abs(shifts[p]))
            reweighted = max(bias["parameters"], key=lambda p: bias["parameters"][p]["bias"])
            one, trusted = bias["parameters"][reweighted], "" if bias["verdict"]["trusted"] else " (not trusted)"
            by_weights = f"{one['bias']:.2f} sigma, {reweighted}{trusted}"
            by_fits = f"{shifts[worst]:+.2f} sigma, {worst}"
            cells = name.replace("_", ", "), which, f"{entry[which]['rms_mK']:.2f}", by_weights, by_fits
            lines.append(f"| {' | '.join(cells)} | {bias['D_KL']:.3f} |")
    return "\n".join(lines)


def _value(mean, std) -> str:
    digits = max(0, 2 - int(np.floor(np.log10(std))) - 1)
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


def _normalisation(name) -> float:
    """Normalisation N / 2 ln(2 pi sigma^2) that is omitted from the likelihood of the authors."""
    model, noise = name.removesuffix("mK").split("_")
    return {"21cmgem": 451, "ares": 449}[model] / 2 * np.log(2 * np.pi * float(noise) ** 2)


def figure(results: dict, path: Path) -> None:
    """Plot the shift of each parameter's mean from the fit with 21cmKAN, in units of its standard deviation."""
    drawn = new_figure(figsize=(10.0, 4.0), layout="constrained")
    axes = drawn.subplots(1, len(results), sharey=True)
    for panel, (name, entry) in zip(np.atleast_1d(axes), results.items()):
        truth = entry["21cmKAN"]["parameters"]
        for which, colour, shift in (("shipped", BLUE, -0.1), ("globalemu", RED, 0.1)):
            if which in entry:
                values = [(entry[which]["parameters"][p]["mean"] - t["mean"]) / t["std"] for p, t in truth.items()]
                panel.plot(np.arange(len(values)) + shift, values, "o", color=colour, label=which)
        panel.axhline(0.0, color=GREY, lw=1.0)
        panel.set_xticks(range(len(truth)), list(truth), rotation=90)
        panel.set_title(name.replace("_", " "))
    np.atleast_1d(axes)[0].set_ylabel(r"(mean - mean of 21cmKAN) / $\sigma$")
    np.atleast_1d(axes)[0].legend(frameon=False)
    save(drawn, path)


def main():
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("chains/dj24"))
    parser.add_argument("--models", nargs="+", default=list(LABELS), choices=list(LABELS))
    parser.add_argument("--noise", type=int, nargs="+", default=[25, 10, 5])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    results = study(given.published.absolute(), given.output.absolute(), given.models, given.noise)
    (RESULTS / "dj24.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    figure(results, IMAGES / "dj24_shifts.png")
    replace_in_page("dj24.md", "posteriors", posterior_table(results))
    replace_in_page("dj24.md", "bias", bias_table(results))


if __name__ == "__main__":
    main()
