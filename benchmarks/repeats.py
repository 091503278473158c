"""Number of repeats that PolyChord needs, from the same fit with many seeds: the table of docs/results/samplers.md.

    python benchmarks/repeats.py WORK [--runs mock_5mK,mock_25mK] [--repeats 5,10,20] [--seeds 16] [--jobs 2]

A run with 25d live points, so many repeats and another seed, in one process each, `--jobs` at a time; finished
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
from lstmfit.analysis.reweight import effective_size


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
    sizes = np.array([effective_size(s.get_weights()) for s in samples])
    names = list(summaries[0]["parameters"])

    def column(key):
        return np.array([[s["parameters"][name][key] for name in names] for s in summaries])

    scatter = column("mean").std(axis=0, ddof=1)
    # Of a mean of as many independent points.
    independent = np.sqrt(np.mean(column("std") ** 2 / sizes[:, None], axis=0))
    mean_err = np.sqrt(np.mean(column("mean_err") ** 2, axis=0))
    logZ, quoted = (np.array([s[key] for s in summaries]) for key in ("logZ", "logZ_err"))
    return {
        "calls": float(np.mean([s["n_like"] for s in summaries])),
        "logZ": float(logZ.mean()),
        "logZ_err": float(quoted.mean()),
        "logZ_scatter": float(logZ.std(ddof=1)),
        "ess": float(sizes.mean()),
        "excess": dict(zip(names, scatter / independent)),
        "quoted": dict(zip(names, mean_err / independent)),
        "pull": dict(zip(names, scatter / mean_err)),
        "insertion_p": [s["insertion_p"] for s in summaries],
    }


def main():
    """Run all fits and write the table to the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--runs", default="mock_5mK,mock_25mK")
    parser.add_argument("--repeats", default="5,10,20")
    parser.add_argument("--seeds", type=int, default=16)
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
        "| run | repeats | seeds | calls | mean ln Z | quoted error | scatter | ESS "
        "| scatter of means, σ/√ESS | quoted `mean_err`, σ/√ESS | scatter over `mean_err` | largest |",
        "|" + "---|" * 12,
    ]
    for run, repeats in cells:
        folders = [wanted.work / f"{run}_{repeats}d_{seed}" for seed in range(wanted.seeds)]
        folders = [folder for folder in folders if (folder / "summary.json").is_file()]
        if len(folders) < 3:
            continue
        found = figures(folders)
        print(json.dumps(found, indent=1))
        pull, largest = found["pull"], max(found["pull"], key=found["pull"].get)
        excess, quoted, rms = (
            np.sqrt(np.mean(np.square(list(found[key].values())))) for key in ("excess", "quoted", "pull")
        )
        lines.append(
            f"| {run} | {repeats}d | {len(folders)} | {found['calls']:,.0f} | {found['logZ']:.2f} "
            f"| {found['logZ_err']:.2f} | {found['logZ_scatter']:.2f} | {found['ess']:.0f} | {excess:.2f} "
            f"| {quoted:.2f} | {rms:.2f} | {pull[largest]:.2f} ({largest}) |"
        )
    replace_in_page("samplers.md", "repeats", "\n".join(lines))


if __name__ == "__main__":
    main()
