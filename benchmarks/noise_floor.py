"""Numerical noise of ECHO21 itself, a lower limit for the error of its emulators.

    python benchmarks/noise_floor.py [N]

A step of 1e-4 in each log10 parameter, once up and once down, leaves of a smooth signal only its curvature, some
1e-6 mK. What the second difference is larger by is the integrator's own noise, for which its variance is 6 times that
of one signal.
"""

import sys

import numpy as np

from lstmfit.emulator.emulator import Emulator
from lstmfit.simulators import load

STEP = 1e-4


def main(n=512):
    """Print the distribution of the relative rms noise over parameters drawn from the prior."""
    emulator, simulate = Emulator.load("echo21"), load("echo21")
    rng = np.random.default_rng(7)
    low, high = (np.log10([getattr(p, end) for p in emulator.parameters]) for end in ("min", "max"))
    percent = []
    for u in rng.uniform(0.01, 0.99, (n, len(low))):
        x = low + u * (high - low)
        direction = rng.choice([-1.0, 1.0], len(x)) * STEP
        down, middle, up = (simulate(10 ** (x + k * direction)).signal for k in (-1, 0, 1))
        noise = np.sqrt(np.mean((down - 2 * middle + up) ** 2) / 6)
        percent.append(100 * noise / np.abs(middle).max())
    percent = np.array(percent)
    quantiles = dict(zip(("median", "95 %", "99 %", "worst"), np.percentile(percent, [50, 95, 99, 100])))
    print(f"{n} signals: mean {percent.mean():.2g} %", *(f"{k} {v:.2g} %" for k, v in quantiles.items()), sep=", ")


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
