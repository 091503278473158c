"""Time per call of the luminosity-function likelihood in microseconds, for both efficiencies, all redshifts and bins.

Run: OMP_NUM_THREADS=1 python benchmarks/luminosity_functions.py
"""

import time

import numpy as np

from lstmfit.likelihoods.base import make_likelihood

CASES = {"constant": [0.5], "double_power_law": [0.05, 2.8e11, 0.49, -0.61]}

for efficiency, values in CASES.items():
    options = {"brightest": None, "efficiency": efficiency}
    likelihood, theta = make_likelihood("uvlf_bouwens2015", np.linspace(5, 50, 451), options), np.array(values)
    times = []
    for _ in range(2000):
        start = time.perf_counter()
        likelihood(theta)
        times.append(time.perf_counter() - start)
    print(f"{efficiency}: median {1e6 * np.median(times):.1f} us, least {1e6 * min(times):.1f} us")
