"""Create a set of signals as hard to emulate as 21cmGEM's, in the same format, to develop the default recipe.

    python benchmarks/hard_set.py hard.h5 --n 24562 --seed 1
    lstmfit train hard.h5 -o hard_emulator.h5

ECHO21's signals are smooth in redshift and in its parameters; those of 21cmGEM (Cohen et al. 2020) are not: X-ray
efficiencies run over nine decades, reionisation ends at a kink whose place is set by tau, and faint signals count as
much as deep ones in the relative error. The 21cmGEM simulations are not ours to run, so this is a cheap stand-in with
the same parameters, ranges, grid and sizes: Press-Schechter haloes above a circular velocity, Lyman-alpha coupling and
X-ray heating that follow their collapse, photon counting for reionisation scaled to the tau that is asked for. It is a
test of emulators, not a model of the sky.
"""

import argparse

import h5py
import numpy as np
from scipy.special import erfc

from lstmfit.files import replacing

REDSHIFTS = np.linspace(5.0, 50.0, 451)
RANGES = {
    "fstar": (1e-4, 0.5, True),
    "Vc": (4.2, 100.0, True),
    "fX": (1e-6, 1e3, True),
    "tau": (0.04, 0.17, False),
    "alpha": (1.0, 1.5, False),
    "nu_min": (0.1, 3.0, False),
    "Rmfp": (10.0, 50.0, False),
}
OMEGA_M, H0_PER_S, OMEGA_B_H2 = 0.315, 2.18e-18, 0.0224


def collapsed_fraction(vc, z):
    """Press-Schechter mass fraction in haloes above a circular velocity (km/s): (n, n_z)."""
    # M = 1e8 Msun (vc / 16.5)^3 ((1+z)/10)^-1.5, and sigma(M) of a LCDM spectrum as a quadratic in log10 M.
    x = np.log10((vc[:, None] / 16.5) ** 3 * ((1 + z) / 10) ** -1.5)
    sigma = 10 ** (0.852 - 0.098 * x - 0.0085 * x**2)
    return erfc(1.686 * (1 + z) / 0.78 / (np.sqrt(2) * sigma))


def optical_depth(z, ionised):
    """Thomson optical depth of ionised fractions (n, n_z) on an ascending grid, fully ionised below it."""
    per_z = 2.0e-3 * (1 + z) ** 2 / np.sqrt(OMEGA_M * (1 + z) ** 3 + 1 - OMEGA_M)
    below = np.linspace(0.0, z[0], 200)
    full = np.trapezoid(2.0e-3 * (1 + below) ** 2 / np.sqrt(OMEGA_M * (1 + below) ** 3 + 1 - OMEGA_M), below)
    return full + np.trapezoid(per_z * ionised, z, axis=1)


def ionised_fraction(z, photons, rmfp):
    """Ionised volume for ionising photons per atom; a short mean free path delays the end."""
    q = np.minimum(photons, 1.0)
    return 1.0 - (1.0 - q) ** (0.25 + 3.0 / rmfp[:, None])


def signals(theta):
    """Signals in mK (n, 451) for parameters (n, 7) in the order of `RANGES`."""
    fstar, vc, fx, tau, alpha, nu_min, rmfp = theta.T
    z = REDSHIFTS
    fine = np.linspace(5.0, 65.0, 1201)
    collapse = collapsed_fraction(vc, fine)
    # Star formation: collapse per unit z; sources of Lyman-alpha photons, seen from 18 % higher in 1+z at most.
    rate = np.maximum(-np.gradient(collapse, fine, axis=1), 0.0) * fstar[:, None]
    cumulative = np.concatenate([np.zeros((len(theta), 1)), np.cumsum(0.5 * (rate[:, 1:] + rate[:, :-1]), axis=1)], 1)
    horizon = np.minimum((1 + fine) * 32 / 27 - 1, fine[-1])
    step = fine[1] - fine[0]
    seen = np.stack([np.interp(horizon, fine, row) for row in cumulative]) - cumulative
    coupling = 6.0e7 * step * seen * ((1 + fine) / 20) ** 2
    # X-rays: softer spectra heat more and locally; the harder, the later.
    hardness = nu_min + 0.4 * (1.5 - alpha)
    efficiency = 1.0 / (0.4 + hardness**1.5)
    delay = 0.03 + 0.12 * hardness
    later = np.stack([np.interp((1 + fine) * (1 + d) - 1, fine, row) for d, row in zip(delay, rate, strict=True)])
    heating = 1.0e6 * (fx * efficiency)[:, None] * later
    temperature = np.empty_like(collapse)
    temperature[:, -1] = 0.02 * (1 + fine[-1]) ** 2
    for i in range(len(fine) - 2, -1, -1):
        ratio = ((1 + fine[i]) / (1 + fine[i + 1])) ** 2
        temperature[:, i] = temperature[:, i + 1] * ratio + 0.5 * step * (heating[:, i] + heating[:, i + 1])
    # Reionisation: bisection of the logarithm of the efficiency to obtain the requested tau.
    shape = collapse / collapse[:, :1]
    low, high = np.full(len(theta), -3.0), np.full(len(theta), 8.0)
    for _ in range(50):
        middle = 0.5 * (low + high)
        too_much = optical_depth(fine, ionised_fraction(fine, 10 ** middle[:, None] * shape, rmfp)) > tau
        high, low = np.where(too_much, middle, high), np.where(too_much, low, middle)
    neutral = 1.0 - ionised_fraction(fine, 10 ** (0.5 * (low + high))[:, None] * shape, rmfp)
    cmb = 2.725 * (1 + fine)
    collisions = 0.3 * ((1 + fine) / 50) ** 4
    total = coupling + collisions
    spin = (1 + total) / (1 / cmb + total / temperature)
    t21 = 27.0 * neutral * (OMEGA_B_H2 / 0.023) * np.sqrt(0.15 / (OMEGA_M * 0.674**2) * (1 + fine) / 10)
    t21 = t21 * (1 - cmb / spin)
    return np.stack([np.interp(z, fine, row) for row in t21])


def draw(n, rng):
    """Parameters from the public ranges (n, 7): uniform, or log-uniform where this is customary."""
    columns = []
    for low, high, log in RANGES.values():
        columns.append(10 ** rng.uniform(np.log10(low), np.log10(high), n) if log else rng.uniform(low, high, n))
    return np.stack(columns, axis=1)


def main():
    """Create and write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--n", type=int, default=24_562, help="training signals, as in the public set")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with replacing(arguments.output) as temporary, h5py.File(temporary, "w") as file:
        for split, n in (("train", arguments.n), ("val", 2730), ("test", 1704)):
            theta = draw(n, rng)
            file[f"par_{split}"] = theta
            parts = [signals(part) for part in np.array_split(theta, -(-n // 1000))]
            file[f"signal_{split}"] = np.concatenate(parts).astype(np.float32)


if __name__ == "__main__":
    main()
