"""The calibrations of docs/results/calibration.md: mocks from the simulator, fitted with the shipped emulator.

    python benchmarks/calibration_study.py WORK -n 100 [--jobs N] [--only 5mK,5mK_error] [--tables]
    python benchmarks/calibration_study.py WORK --verify 8

Campaigns resume where they were stopped, mock by mock. The first form ends by replacing the tables in
docs/results/calibration.md between the marks `<!-- campaigns -->`, calibration.json beside it and the figure;
`--tables` does only that, with the mocks that are there. The second compares the sampler's
small settings with the usual ones.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from pages import IMAGES, RESULTS, replace_in_page
from scipy.stats import binom, chi2, kstwo, norm

from lstmfit import Emulator
from lstmfit.analysis.coverage import LEVELS, binomial_band, read_mocks, summarise
from lstmfit.analysis.plots import BLUE, GREY, RED, new_figure, save
from lstmfit.calibration import calibrate

CAMPAIGNS = {"25mK": (25, False), "5mK": (5, False), "5mK_error": (5, True), "1mK": (1, False), "1mK_error": (1, True)}
"""Noise in mK, and whether the emulator's error covariance is in the likelihood. All use the same parameters and noise
draws, so that two calibrations with the same noise fit the same data."""
SMALL, USUAL = ("10d", "5d"), ("25d", "5d")
"""Live points and repeats of the calibrations, and the defaults of a fit; at 1 mK the small numbers are not enough."""
SHOWN = (50, 100, 400, 1000)


def run_file(noise, emulator_error, settings=None):
    """Run file of a calibration; its mock only defines the channels."""
    settings = settings or (USUAL if noise < 5 else SMALL)
    theta = {"fX": 0.1, "fLy": 1.0, "fesc": 0.05, "Tmin_vir": 1e4, "tstar": 0.5, "sLy": 2.64, "wX": 1.5}
    noise = float(noise)
    return {
        "emulator": "echo21",
        "data": {"mock": {"theta": theta, "from": "emulator", "noise": noise, "seed": 1}},
        "likelihood": {
            "global_signal": {"noise": {"model": "white", "sigma": noise}, "emulator_error": emulator_error}
        },
        "sampler": {"polychord": {"nlive": settings[0], "num_repeats": settings[1], "seed": 1}},
    }


def progress_of(name):
    """Print the progress of a calibration."""
    return lambda done, n: print(f"{name}: {done} of {n}", flush=True)


def verify(work: Path, n: int, jobs: int):
    """Compare small and default settings on the same mocks: ranks, widths and distances must agree."""
    text = [
        "| noise [mK] | rms difference of ranks (expected for independent chains) | mean width ratio | its scatter "
        "| mean difference of z | rms difference of z | ratio of calls |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("25mK", "5mK", "1mK"):
        mocks = []
        for label, settings in (("small", SMALL), ("usual", USUAL)):
            folder = work / "verify" / f"{name}_{label}"
            calibrate(
                run_file(*CAMPAIGNS[name], settings), folder, n, points=0, jobs=jobs, progress=progress_of(folder)
            )
            mocks.append(read_mocks(folder, n))
        small, usual = mocks
        values = {
            (key, i): np.array([list(m[key].values()) for m in group])
            for i, group in enumerate(mocks)
            for key in ("rank", "std", "z")
        }
        ess = [np.array([m["ess"] for m in group])[:, None] for group in mocks]
        difference = values["rank", 0] - values["rank", 1]
        mean = 0.5 * (values["rank", 0] + values["rank", 1])
        expected = np.sqrt(np.mean(mean * (1 - mean) * (1 / ess[0] + 1 / ess[1])))
        ratio = values["std", 0] / values["std", 1]
        z = values["z", 0] - values["z", 1]
        calls = np.mean([a["n_like"] / b["n_like"] for a, b in zip(small, usual)])
        text.append(
            f"| {CAMPAIGNS[name][0]} | {np.sqrt(np.mean(difference**2)):.3f} ({expected:.3f}) "
            f"| {ratio.mean():.3f} ± {ratio.mean(axis=1).std() / np.sqrt(n):.3f} | {ratio.std():.3f} "
            f"| {z.mean():+.3f} ± {z.mean(axis=1).std() / np.sqrt(n):.3f} | {z.std():.3f} | {calls:.2f} |"
        )
    replace_in_page("calibration.md", "verify", f"{n} mocks of each noise, all 7 parameters.\n\n" + "\n".join(text))


def detectable(n: int, power: float = 0.8, level: float = 0.05, repeats: int = 4000) -> dict:
    """Effects that n mocks can detect in one parameter, with the given power and significance level.

    Returns
    -------
    dict
        ``shift_mean`` of all posteriors in sigma by the mean of z and ``shift_ks`` by the ranks; ``narrow_chi2`` and
        ``narrow_ks``: posterior width over the right one, too narrow; ``coverage_68``, ``coverage_95``: coverage that
        is as much too small.
    """
    z = np.random.default_rng(0).standard_normal((repeats, n))
    critical = kstwo.isf(level, n)
    steps = np.arange(n)

    def seen_by_ranks(shift, width):
        u = np.sort(norm.cdf((z + shift) / width), axis=1)
        distance = np.maximum((u - steps / n).max(axis=1), ((steps + 1) / n - u).max(axis=1))
        return np.mean(distance > critical)

    def solve(seen, low, high):
        for _ in range(30):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if seen(middle) > power else (middle, high)
        return high

    found = {
        "shift_mean": float((norm.isf(level / 2) + norm.isf(1 - power)) / np.sqrt(n)),
        "shift_ks": solve(lambda x: seen_by_ranks(x, 1.0), 0.0, 2.0),
        # The sum of z^2 exceeds its 95th percentile in 5 % of cases; widths too small by x inflate it by 1 / x^2.
        "narrow_chi2": float(np.sqrt(chi2.ppf(1 - power, n) / chi2.isf(level, n))),
        "narrow_ks": 1.0 / solve(lambda x: seen_by_ranks(0.0, 1.0 / x), 1.0, 10.0),
    }
    for nominal in (0.68, 0.95):
        low = binom.ppf(level / 2, n, nominal)
        true = np.linspace(0.0, nominal, 2001)
        chance = binom.cdf(low - 1, n, true)
        key = f"coverage_{round(100 * nominal)}"
        found[key] = float(nominal - true[chance > power].max()) if (chance > power).any() else None
    return found


def campaign_lines(name, mocks, summary):
    """Rows of the two tables for a calibration."""
    noise, error = CAMPAIGNS[name]
    ranks = np.array([list(m["rank"].values()) for m in mocks])
    z = np.array([list(m["z"].values()) for m in mocks])
    cells = []
    for level in LEVELS:
        inside = (np.abs(ranks - 0.5) <= 0.5 * level).mean(axis=1)
        cells.append(f"{inside.mean():.3f} ± {inside.std() / np.sqrt(len(inside)):.3f}")
    p = summary["parameters"]
    outside = sum(
        not q[f"coverage_{k}_low"] <= q[f"coverage_{k}"] <= q[f"coverage_{k}_high"]
        for q in p.values()
        for k in (50, 68, 90, 95)
    )
    worst = min(p, key=lambda key: p[key]["rank_ks_p"])
    e = summary.get("emulation")
    emulation = (
        f"{e['largest_shift_mean']:.3f} / {e['largest_shift_p95']:.3f} | {e['D_KL_median']:.4f} / {e['D_KL_mean']:.4f} "
        f"| {100 * e['trusted']:.0f} %"
        if e
        else "| |"
    )
    label = f"{noise}{' + error' if error else ''}"
    short = (
        f"| {label} | {summary['n']} | {' | '.join(cells)} | {outside} of {4 * len(p)} "
        f"| {min(1.0, len(p) * p[worst]['rank_ks_p']):.2g} ({worst}) | {np.abs(z.mean(axis=0)).max():.2f} "
        f"| {summary['chi2']['mean']:.2f} ± {summary['chi2']['err']:.2f} | {emulation} |"
    )
    long = [
        f"| {label} | {key} | "
        + " | ".join(f"{q[f'coverage_{k}']:.2f}" for k in (50, 68, 90, 95))
        + f" | {q['rank_ks_p']:.2g} | {q['z_mean']:+.2f} ± {q['z_mean_err']:.2f} | {q['z_std']:.2f} "
        + (f"| {e['shift_mean'][key]:+.3f} ± {e['shift_mean_err'][key]:.3f} |" if e else "| |")
        for key, q in p.items()
    ]
    return short, long


def pair_line(noise, without, with_error):
    """Effect of the emulator error in the likelihood, on the same mocks."""
    n = min(len(without), len(with_error))
    a, b = without[:n], with_error[:n]
    names = list(a[0]["rank"])
    ranks = [np.array([[m["rank"][k] for k in names] for m in group]) for group in (a, b)]
    width = np.array([[y["std"][k] / x["std"][k] for k in names] for x, y in zip(a, b)])
    change = np.array([y["chi2"] - x["chi2"] for x, y in zip(a, b)]) / len(names)
    cells = []
    for level in LEVELS:
        inside = [(np.abs(r - 0.5) <= 0.5 * level).mean(axis=1) for r in ranks]
        d = inside[1] - inside[0]
        cells.append(f"{d.mean():+.3f} ± {d.std() / np.sqrt(n):.3f}")
    return (
        f"| {noise} | {n} | {' | '.join(cells)} | {change.mean():+.3f} ± {change.std() / np.sqrt(n):.3f} "
        f"| {width.mean():.3f} | {np.percentile(width, 95):.3f} |"
    )


def tables(work: Path) -> tuple[str, dict]:
    """Results of all calibrations as Markdown, and the underlying figures."""
    short, long, results, mocks = [], [], {}, {}
    for name in CAMPAIGNS:
        if not read_mocks(work / name):
            continue
        results[name] = summarise(work / name)
        mocks[name] = [m for m in read_mocks(work / name) if "failed" not in m]
        line, lines = campaign_lines(name, mocks[name], results[name])
        short.append(line)
        long += lines
    most = max(r["n"] for r in results.values())
    bands = ", ".join("{:.2f} to {:.2f}".format(*binomial_band(most, level)) for level in LEVELS)
    emulator = Emulator.load("echo21")
    text = [
        f"Emulator `{emulator.checksum[:12]}`, mean error {emulator.record['test']['mean_mK']:.3f} mK on its test set. "
        f"Truth: ECHO21. Sampler: PolyChord with nlive {SMALL[0]} ({USUAL[0]} at 1 mK) and {SMALL[1]} repeats. "
        f"95 % range of the coverage of one parameter over {most} mocks, for a calibrated fit: {bands} at 50, 68, 90, "
        f"95 %; two standard errors of its mean z: {2 / np.sqrt(most):.2f}.",
        "",
        "| noise [mK] | mocks | 50 % | 68 % | 90 % | 95 % | outside the 95 % range "
        "| ranks, smallest p × 7 | largest mean z | chi-square / d | emulation bias, mean / 95th percentile [σ] "
        "| D_KL, median / mean [nat] | trusted |",
        "|" + "---|" * 13,
        *short,
        "",
        "Coverage is averaged over the 7 parameters; its error comes from the scatter between mocks. Emulation bias is "
        "the largest of the 7 shifts in each fit.",
    ]
    pairs = [(n, f"{n}mK", f"{n}mK_error") for n in (5, 1) if f"{n}mK" in mocks and f"{n}mK_error" in mocks]
    if pairs:
        text += [
            "",
            "Change caused by `emulator_error: true`, on the same mocks (with minus without):",
            "",
            "| noise [mK] | mocks | 50 % | 68 % | 90 % | 95 % | chi-square / d | width ratio, mean "
            "| 95th percentile |",
            "|" + "---|" * 9,
            *(pair_line(n, mocks[a], mocks[b]) for n, a, b in pairs),
        ]
    text += [
        "",
        "| noise [mK] | parameter | 50 % | 68 % | 90 % | 95 % | ranks p | mean z | std z | mean shift [σ] |",
        "|" + "---|" * 10,
        *long,
    ]
    power = {n: detectable(n) for n in SHOWN}
    text += [
        "",
        "Smallest effect in one parameter that N mocks detect with a power of 80 % at the 5 % level (computed by "
        "`detectable`):",
        "",
        "| N | common shift, from mean z [σ] | from ranks [σ] | widths too small, from chi-square | from ranks "
        "| 68 % coverage too low | 95 % coverage too low |",
        "|" + "---|" * 7,
    ]
    for n, d in power.items():
        coverage = ["" if d[k] is None else f"{100 * d[k]:.1f} points" for k in ("coverage_68", "coverage_95")]
        text.append(
            f"| {n} | {d['shift_mean']:.2f} | {d['shift_ks']:.2f} | {100 * (1 - d['narrow_chi2']):.0f} % "
            f"| {100 * (1 - d['narrow_ks']):.0f} % | {' | '.join(coverage)} |"
        )
    picture(mocks, IMAGES / "calibration.png")
    record = {"emulator": emulator.checksum, "campaigns": results, "detectable": power}
    return "\n".join(text), record


def picture(mocks, path: Path):
    """Plot the ranks of each calibration against uniform ones, and the emulation bias over mocks."""
    columns = 2 if len(mocks) < 4 else 3
    rows = -(-(len(mocks) + 1) // columns)
    figure = new_figure(figsize=(3.7 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns).ravel()
    for axis, (name, group) in zip(axes, mocks.items()):
        n = len(group)
        critical = kstwo.isf(0.05, n)
        axis.axhspan(-critical, critical, color=GREY, alpha=0.3, lw=0)
        for i, key in enumerate(group[0]["rank"]):
            u = np.sort([m["rank"][key] for m in group])
            axis.step(u, np.arange(1, n + 1) / n - u, where="post", lw=1, color=f"C{i}", label=key)
        noise, error = CAMPAIGNS[name]
        axis.set(
            title=f"{noise} mK{', emulator_error' if error else ''} ({n} mocks)", xlabel="rank of the truth",
            ylabel="cumulative fraction − rank", xlim=(0, 1), ylim=(-0.35, 0.35),
        )  # fmt: skip
    axes[0].legend(frameon=False, fontsize=7, ncols=2)
    last = axes[len(mocks)]
    for (name, group), colour in zip(mocks.items(), (GREY, BLUE, BLUE, RED, RED)):
        largest = [
            max(abs(v) for v in m["emulation"]["shift"].values()) for m in group if "shift" in m.get("emulation", {})
        ]
        if largest:
            style = "--" if CAMPAIGNS[name][1] else "-"
            last.step(
                np.sort(largest), np.arange(1, len(largest) + 1) / len(largest), where="post", color=colour, ls=style,
                label=name.replace("_", " + "),
            )  # fmt: skip
    last.set(xscale="log", xlabel=r"largest emulation bias of a fit [$\sigma$]", ylabel="fraction of mocks")
    last.legend(frameon=False, fontsize=8)
    for axis in axes[len(mocks) + 1 :]:
        axis.set_visible(False)
    save(figure, path)


def main():
    """Run the calibrations, or only create the tables of existing ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default=",".join(CAMPAIGNS))
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--verify", type=int)
    wanted = parser.parse_args()
    if wanted.verify:
        verify(wanted.work, wanted.verify, wanted.jobs)
        return
    if not wanted.tables:
        for name in wanted.only.split(","):
            folder = wanted.work / name
            calibrate(run_file(*CAMPAIGNS[name]), folder, wanted.n, jobs=wanted.jobs, progress=progress_of(name))
    text, record = tables(wanted.work)
    (RESULTS / "calibration.json").write_text(json.dumps(record, indent=1) + "\n")
    replace_in_page("calibration.md", "campaigns", text)


if __name__ == "__main__":
    main()
