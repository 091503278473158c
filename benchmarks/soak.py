"""Memory of all processes during a fit of ten million likelihood calls: the figures of docs/results/scaling.md.

    python benchmarks/soak.py WORK [--calls 1e7]

The demo's fit with as many live points as it takes, on all cores. Memory is what the kernel says of each PolyChord
process (resident set), every few seconds; growth is the slope over the second half of the calls.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

from lstmfit.workers import cores

TOP = Path(__file__).resolve().parent.parent
CALLS_PER_LIVE_POINT = 2000
"""Likelihood calls per live point, from the demo: 346,000 calls for 175 live points."""


def resident(process: int) -> float:
    """Resident memory of a process in MB."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


def children(process: int) -> list[int]:
    """Child processes of a process."""
    text = "".join(task.read_text() for task in Path(f"/proc/{process}/task").glob("*/children"))
    return [int(word) for word in text.split()]


def main():
    """Run the fit, monitor its memory and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--calls", type=float, default=1e7)
    wanted = parser.parse_args()
    wanted.work.mkdir(parents=True, exist_ok=True)
    content = yaml.safe_load((TOP / "runs" / "mock_25mK.yaml").read_text())
    content["sampler"]["polychord"]["nlive"] = round(wanted.calls / CALLS_PER_LIVE_POINT)
    (wanted.work / "run.yaml").write_text(yaml.safe_dump(content))
    folder = wanted.work / "fit"
    lstmfit = Path(sys.executable).with_name("lstmfit")
    command = [str(lstmfit), "fit", str(wanted.work / "run.yaml"), "-o", str(folder), "--force"]
    fit = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    rows = []
    while fit.poll() is None:
        time.sleep(3.0)
        states = [json.loads(path.read_text()) for path in sorted(folder.glob("parts/*/chain.state.json"))]
        try:
            memory = [resident(child) for child in children(fit.pid)]
        except (OSError, TypeError):
            continue
        if states and len(memory) == cores():
            rows.append((sum(state["n_like"] for state in states), *memory))
    rows = np.array(rows)
    np.savetxt(wanted.work / "memory.txt", rows, header="calls, MB of each process")
    summary = json.loads((folder / "summary.json").read_text())
    logZ = f"logZ {summary['logZ']:.3f} ± {summary['logZ_err']:.3f}"
    print(f"{summary['n_like']:,} calls in {summary['wall_s']:.0f} s, {logZ}")
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        row = rows[np.searchsorted(rows[:, 0], share * rows[-1, 0])]
        print(f"{row[0]:12,.0f} calls: " + ", ".join(f"{mb:.0f}" for mb in row[1:]) + " MB")
    late = rows[rows[:, 0] > 0.5 * rows[-1, 0]]
    slopes = [np.polyfit(late[:, 0] / 1e6, column, 1)[0] for column in late[:, 1:].T]
    print("growth over the second half: " + ", ".join(f"{slope:+.2f}" for slope in slopes) + " MB per million calls")


if __name__ == "__main__":
    main()
