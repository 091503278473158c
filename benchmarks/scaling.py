"""How a fit scales with processes and MPI ranks: the tables of docs/results/scaling.md.

    python benchmarks/scaling.py WORK [--run runs/mock_25mK.yaml] [--seeds 3]

Each seed is fitted in every way in turn, so that whatever else the machine does meets all of them. What is compared is
dead points a second while PolyChord runs, in the slowest process where there are several: points and not calls, since
workers also make points that are thrown away. Start, merging, files and pictures are in the whole.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from pages import IMAGES, TOP, replace_in_page

from lstmfit.analysis.plots import BLUE, GREY, RED, new_figure, save

LSTMFIT = [str(Path(sys.executable).with_name("lstmfit")), "fit"]
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n"]
WAYS = {
    "one process": ([], ["--jobs", "1"], 1),
    "two processes, merged": ([], ["--jobs", "2"], 2),
    "2 ranks": ([*MPIRUN, "2"], [], 1),
    "3 ranks": ([*MPIRUN, "3"], [], 2),
    "4 ranks": ([*MPIRUN, "4"], [], 3),
}
"""Way to run -> prefix of the command, its options, number of workers."""


def measure(work: Path, run: Path, seeds: int) -> dict:
    """Fit in all ways; returns way -> list of {calls, points, sampling_s, whole_s, logZ, logZ_err}."""
    found = {way: [] for way in WAYS}
    content = yaml.safe_load(run.read_text())
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for seed in range(1, seeds + 1):
        content["sampler"]["polychord"]["seed"] = seed
        (work / "run.yaml").write_text(yaml.safe_dump(content))
        for way, (before, options, _) in WAYS.items():
            folder = work / "fit"
            shutil.rmtree(folder, ignore_errors=True)
            began = time.monotonic()
            command = [*before, *LSTMFIT, str(work / "run.yaml"), "-o", str(folder), *options]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            whole = time.monotonic() - began
            summary = json.loads((folder / "summary.json").read_text())
            parts = sorted(folder.glob("parts/*/chain.state.json"))
            states = [json.loads(state.read_text()) for state in parts or [folder / "chain.state.json"]]
            # Serial runs share the processes; their own times do not include the start of these.
            at_once = summary["ranks"] if parts else 1
            row = {key: summary[key] for key in ("logZ", "logZ_err")}
            row |= {"points": sum(state["n_dead"] for state in states), "calls": summary["n_like"], "whole_s": whole}
            found[way].append(row | {"sampling_s": sum(state["wall_s"] for state in states) / at_once})
            print(f"seed {seed}, {way}: {found[way][-1]}", flush=True)
    return found


def speed_up(workers, n_live):
    """Expected speed-up, n ln(1 + k/n) for k workers and n live points (Handley et al. 2015b, on parallelisation)."""
    return n_live * np.log1p(np.asarray(workers) / n_live)


def ratios(found: dict) -> dict:
    """Points per second relative to one process, for each seed."""
    rates = {way: np.array([r["points"] / r["sampling_s"] for r in rows]) for way, rows in found.items()}
    return {way: rate / rates["one process"] for way, rate in rates.items()}


def table(found: dict) -> str:
    """Measured rates relative to one process as Markdown."""
    lines = [
        "| | workers | points per second, relative to one process | per worker | calls per point | sampling [s] "
        "| whole command [s] | logZ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way, ratio in ratios(found).items():
        rows = found[way]
        workers = WAYS[way][2]
        spread = ratio.std(ddof=1) / math.sqrt(len(rows)) if len(rows) > 1 else math.nan
        mean = {key: np.mean([r[key] for r in rows]) for key in rows[0]}
        error = math.sqrt(np.mean([r["logZ_err"] ** 2 for r in rows]) / len(rows))
        lines.append(
            f"| {way} | {workers} | {ratio.mean():.2f} ± {spread:.2f} | {100 * ratio.mean() / workers:.0f} % "
            f"| {mean['calls'] / mean['points']:.0f} | {mean['sampling_s']:.1f} | {mean['whole_s']:.1f} "
            f"| {mean['logZ']:.2f} ± {error:.2f} |"
        )
    return "\n".join(lines)


def picture(found: dict, path: Path):
    """Plot the measured speed-ups, and the expectation for more workers."""
    figure = new_figure(figsize=(6.0, 4.2), layout="constrained")
    axis = figure.subplots()
    workers = np.geomspace(1, 3000, 200)
    axis.plot(workers, workers, color=GREY, lw=1, ls=":", label="perfect")
    for n_live, style in ((175, "-"), (1000, "--")):
        axis.plot(workers, speed_up(workers, n_live), color=BLUE, ls=style, label=f"law, {n_live} live points")
    for way, ratio in ratios(found).items():
        axis.plot(WAYS[way][2], ratio.mean(), "o", color=RED, ms=4)
    axis.plot([], [], "o", color=RED, ms=4, label="measured on two cores")
    axis.set(xscale="log", yscale="log", xlabel="workers", ylabel="speed-up")
    axis.legend(frameon=False, fontsize=8)
    save(figure, path)


def main():
    """Measure, and write the table, the record and the plot for the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--run", type=Path, default=TOP / "runs" / "mock_25mK.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    wanted = parser.parse_args()
    wanted.work.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    found = measure(wanted.work, wanted.run, wanted.seeds)
    text = f"{wanted.run.stem}, {wanted.seeds} seeds, load average {load:.1f} before the start, {os.cpu_count()} cores."
    text += f"\n\n{table(found)}"
    picture(found, IMAGES / "scaling.png")
    replace_in_page("scaling.md", "measured", text)


if __name__ == "__main__":
    main()
