"""Number of repeats that PolyChord needs, from the same fit with many seeds: the table of docs/results/samplers.md.

    python benchmarks/repeats.py WORK [--runs mock_5mK,mock_25mK] [--repeats 5,10,20] [--seeds 8] [--jobs 2]

A run with n_live points, so many repeats and another seed, in one process each, `--jobs` at a time; finished
runs are not repeated; `--tables` makes the table of those. The question: do means and evidences scatter from seed to
seed as their quoted errors say?
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import yaml
from pages import TOP, replace_in_page

from lstmfit.analysis.foreign_chains import read_chain


def fit(work: Path, run: str, repeats: int, seed: int) -> Path:
    """Fit a shipped run file in one process, unless it has already been fitted."""
    folder = work / f"{run}_{repeats}d_{seed}"
    content = yaml.safe_load((TOP / "runs" / f"{run}.yaml").read_text())
    content["sampler"] = {"polychord": {"nlive": "25d", "num_repeats": f"{repeats}d", "seed": seed}}
    (work / f"{folder.name}.yaml").write_text(yaml.safe_dump(content))
    lstmfit = Path(sys.executable).with_name("lstmfit")
    command = [str(lstmfit), "fit", f"{folder}.yaml", "-o", str(folder), "--resume", "--jobs", "1"]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return folder


def figures(folders: list[Path]) -> dict:
    """Compare the scatter of evidences and means over runs with different seeds with the quoted errors."""
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    samples = [read_chain(folder).samples for folder in folders]
    names = list(summaries[0]["parameters"])
    weights = [s.get_weights() / s.get_weights().sum() for s in samples]
    values = [s[names].to_numpy() for s in samples]
    means = np.array([w @ x for w, x in zip(weights, values)])
    variances = np.array([w @ (x - m) ** 2 for w, x, m in zip(weights, values, means)])
    sizes = np.array([1.0 / (w @ w) for w in weights])
    width = np.sqrt(variances.mean(axis=0))
    logZ, quoted = (np.array([s[key] for s in summaries]) for key in ("logZ", "logZ_err"))
    return {
        "calls": float(np.mean([s["n_like"] for s in summaries])),
        "logZ": float(logZ.mean()),
        "logZ_err": float(quoted.mean()),
        "logZ_scatter": float(logZ.std(ddof=1)),
        "ess": float(sizes.mean()),
        # Variance over seeds relative to that of the mean of as many independent draws.
        "excess": dict(zip(names, np.sqrt(sizes.mean() * means.var(axis=0, ddof=1)) / width)),
        "insertion_p": [s["insertion_p"] for s in summaries],
    }


def main():
    """Run all fits and write the table to the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--runs", default="mock_5mK,mock_25mK")
    parser.add_argument("--repeats", default="5,10,20")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tables", action="store_true")
    wanted = parser.parse_args()
    wanted.work.mkdir(parents=True, exist_ok=True)
    cells = list(itertools.product(wanted.runs.split(","), map(int, wanted.repeats.split(","))))
    if not wanted.tables:
        jobs = [(wanted.work, *cell, seed) for cell in cells for seed in range(wanted.seeds)]
        with ThreadPoolExecutor(wanted.jobs) as pool:
            list(pool.map(lambda job: fit(*job), jobs))
    lines = [
        "| run | repeats | seeds | calls | mean ln Z | quoted error | scatter | effective sample size "
        "| scatter of means in units of σ/√ESS: rms over parameters | largest |",
        "|" + "---|" * 10,
    ]
    for run, repeats in cells:
        folders = [wanted.work / f"{run}_{repeats}d_{seed}" for seed in range(wanted.seeds)]
        folders = [folder for folder in folders if (folder / "summary.json").is_file()]
        if len(folders) < 3:
            continue
        found = figures(folders)
        print(json.dumps(found, indent=1))
        excess, largest = found["excess"], max(found["excess"], key=found["excess"].get)
        rms = np.sqrt(np.mean(np.square(list(excess.values()))))
        lines.append(
            f"| {run} | {repeats}d | {len(folders)} | {found['calls']:,.0f} | {found['logZ']:.2f} "
            f"| {found['logZ_err']:.2f} | {found['logZ_scatter']:.2f} | {found['ess']:.0f} | {rms:.2f} "
            f"| {excess[largest]:.2f} ({largest}) |"
        )
    replace_in_page("samplers.md", "repeats", "\n".join(lines))


if __name__ == "__main__":
    main()
