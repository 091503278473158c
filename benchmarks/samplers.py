"""Compare the three samplers on the same fits: the table of docs/results/samplers.md.

    python benchmarks/samplers.py WORK [--runs mock_25mK,mock_5mK]

Each with its defaults, on all cores, one after the other; finished fits are not repeated.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from pages import TOP, replace_in_page

from lstmfit.analysis.compare import align, compare
from lstmfit.analysis.foreign_chains import read_chain

SAMPLERS = ("polychord", "nautilus", "blackjax")


def fit(work: Path, run: str, sampler: str) -> Path:
    """Fit a shipped run file with a different sampler, unless it has already been fitted."""
    folder = work / f"{run}_{sampler}"
    content = yaml.safe_load((TOP / "runs" / f"{run}.yaml").read_text())
    content["sampler"] = {sampler: {"seed": 1}}
    (work / f"{run}_{sampler}.yaml").write_text(yaml.safe_dump(content))
    command = [str(Path(sys.executable).with_name("lstmfit")), "fit", f"{folder}.yaml", "-o", str(folder), "--resume"]
    print(f"{run}, {sampler}", flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


def main():
    """Fit, compare with PolyChord, and write the table to the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--runs", default="mock_25mK,mock_5mK")
    wanted = parser.parse_args()
    wanted.work.mkdir(parents=True, exist_ok=True)
    lines = [
        "| run | sampler | calls | wall | logZ | difference in logZ from PolyChord, joint σ "
        "| largest KS distance from PolyChord | largest difference of means | largest difference of widths |",
        "|" + "---|" * 9,
    ]
    for run in wanted.runs.split(","):
        first = None
        for sampler in SAMPLERS:
            folder = fit(wanted.work, run, sampler)
            summary, chain = json.loads((folder / "summary.json").read_text()), read_chain(folder)
            cells = [""] * 4
            if first is None:
                first = summary, chain
            else:
                difference = abs(summary["logZ"] - first[0]["logZ"])
                a, b, names = align(chain, first[1])
                found = compare(a.samples, b.samples, names)["parameters"].values()
                worst = max(found, key=lambda p: p["ks"])
                widths = np.abs(np.array([p["width_ratio"] for p in found]) - 1.0)
                cells = [
                    f"{difference / np.hypot(summary['logZ_err'], first[0]['logZ_err']):.1f}",
                    f"{worst['ks']:.3f} (p {worst['ks_p']:.2g})",
                    f"{max(p['bias'] for p in found):.2f}σ",
                    f"{100 * widths.max():.0f} %",
                ]
            lines.append(
                f"| {run} | {summary['sampler']} | {summary['n_like']:,} | {summary['wall_s']:.0f} s "
                f"| {summary['logZ']:.2f} ± {summary['logZ_err']:.2f} | {' | '.join(cells)} |"
            )
    replace_in_page("samplers.md", "samplers", "\n".join(lines))


if __name__ == "__main__":
    main()
