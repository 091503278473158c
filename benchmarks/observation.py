"""A worked observation: five time bins of a chromatic dipole under the Galaxy, with a signal of ECHO21 or 21cmGEM.

python benchmarks/observation.py make -o observation      # spectra, chromaticity functions, modes and run files
python benchmarks/observation.py fit -o observation       # fit them (again to resume)
lstmfit calibrate observation/basis.yaml -n 40 -o observation/calibration_basis          # likewise regions
python benchmarks/observation.py laplace -o observation   # error of Laplace's method in the fit with regions
python benchmarks/observation.py results -o observation   # tables and picture of docs/results/observation.md

With --emulator 21cmgem (and another folder) the signal is that of the shipped emulator of 21cmGEM.

Needs: pip install "lstmfit[observation]" (healpy and astropy). Nothing is downloaded: the sky is a formula.

The sky at 230 MHz has a disc, a bulge, a spur and an isotropic part. It is divided into regions by spectral index, and
is an exact power law in each, so that the foreground model `regions` (Anstey et al. 2020, arXiv:2010.09644) is the
truth. A horizontal dipole over a ground plane, whose beam depends on frequency, sees it from a latitude of -30.7 deg.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from pages import IMAGES, replace_in_page

from lstmfit.datasets.modes import make_modes
from lstmfit.files import replacing, write_text
from lstmfit.yaml_files import dump_yaml

FREQUENCY = np.arange(55.0, 130.0, 0.5)
"""Centres of the channels in MHz."""
LATITUDE = -30.7
LST = {"lst0": 0.0, "lst2": 2.0, "lst4": 4.0, "lst6": 6.0, "lst8": 8.0}
"""Local sidereal time in hours at the middle of each time bin, which is two hours long."""
HOURS = 20.0
"""Integration time of each spectrum."""
REFERENCE, T_CMB = 230.0, 2.725
INDICES = np.array([2.50, 2.56, 2.61, 2.66, 2.70, 2.75, 2.80, 2.87])
"""Spectral index of each region."""
PRIOR = 2.45844, 3.14556
"""Range of the spectral indices in the training set of spectra, the prior of `regions`."""
THETA = {
    "echo21": {"fX": 0.1, "fLy": 1.0, "fesc": 0.05, "Tmin_vir": 1e4, "tstar": 0.5, "sLy": 2.64, "wX": 1.5},
    "21cmgem": {"fstar": 0.011020955, "Vc": 41.533981, "fX": 6.4696016e-4, "tau": 0.07619594, "alpha": 1.0,
                "nu_min": 2.0, "Rmfp": 45.0},
}  # fmt: skip
"""True parameters for each emulator: those of the shipped mocks and of the published fit at 25 mK."""
SHOWN = {"echo21": ("fX", "Tmin_vir"), "21cmgem": ("fstar", "Vc")}
"""Log-uniform parameters whose widths are in the table."""
NSIDE = 64
MODES, TERMS = 6, 6
N_SPECTRA = 4000
LIVE = {False: {"nlive": "25d", "num_repeats": "5d"}, True: {"nlive": 100, "num_repeats": "2d"}}
"""Settings of the sampler, by whether spectral indices are sampled, whose priors are wide and take long to compress."""
N_POINTS, N_PROPOSED = 50, 4000


def sky(nside: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sky in Galactic coordinates.

    Returns
    -------
    temperature : numpy.ndarray
        (n_pixels,) K at 230 MHz, without the cosmic microwave background.
    region : numpy.ndarray
        (n_pixels,) number of the region of each pixel, by ascending spectral index.
    """
    import healpy
    from anesthetic.utils import temporary_seed
    from astropy.coordinates import angular_separation

    lon, lat = healpy.pix2ang(nside, np.arange(healpy.nside2npix(nside)), lonlat=True)
    lon = (lon + 180.0) % 360.0 - 180.0
    disc = 160.0 * np.exp(-np.abs(lat) / 3.5) * (0.35 + np.exp(-((lon / 45.0) ** 2)))
    halo = 30.0 * np.exp(-np.abs(lat) / 22.0)
    distance = np.rad2deg(angular_separation(np.deg2rad(lon), np.deg2rad(lat), np.deg2rad(-31.0), np.deg2rad(17.5)))
    spur = 14.0 * np.exp(-(((distance - 58.0) / 4.0) ** 2))
    multipole = np.arange(3 * nside)
    power = np.where(multipole >= 2, np.maximum(multipole, 1.0) ** -2.6, 0.0)
    # healpy draws from the global generator, which is left as it was.
    with temporary_seed(int(rng.integers(2**31))):
        ripples = healpy.synfast(power, nside)
    ripples /= ripples.std()
    temperature = (12.0 + halo + disc + spur) * np.exp(0.12 * ripples)
    index = 2.52 + 0.25 * (1.0 - np.exp(-np.abs(lat) / 25.0)) + 0.06 * ripples
    edges = np.quantile(index, np.linspace(0.0, 1.0, len(INDICES) + 1)[1:-1])
    return 4.0 * temperature, np.searchsorted(edges, index)


def horizon(nside: int, lst: float) -> tuple[np.ndarray, np.ndarray]:
    """Zenith angle and azimuth (n_pixels,) in rad of the pixels at a local sidereal time in hours."""
    import healpy
    from astropy import units
    from astropy.coordinates import SkyCoord

    lon, lat = healpy.pix2ang(nside, np.arange(healpy.nside2npix(nside)), lonlat=True)
    place = SkyCoord(l=lon * units.deg, b=lat * units.deg, frame="galactic").icrs
    hour_angle, dec, here = np.deg2rad(15.0 * lst - place.ra.deg), np.deg2rad(place.dec.deg), np.deg2rad(LATITUDE)
    up = np.sin(dec) * np.sin(here) + np.cos(dec) * np.cos(here) * np.cos(hour_angle)
    east = -np.cos(dec) * np.sin(hour_angle)
    north = np.sin(dec) * np.cos(here) - np.cos(dec) * np.sin(here) * np.cos(hour_angle)
    return np.arccos(np.clip(up, -1.0, 1.0)), np.arctan2(east, north)


def beam(zenith_angle: np.ndarray, azimuth: np.ndarray, frequency: float) -> np.ndarray:
    """Gain (n_pixels,) of a horizontal dipole of 1.6 m, 0.8 m above a perfect ground plane; zero below the horizon."""
    wave_number = 2.0 * np.pi * frequency / 299.792458
    along = np.sin(zenith_angle) * np.cos(azimuth)
    half = 0.5 * wave_number * 1.6
    # Far field of a thin dipole, and of its image in the ground.
    across = np.maximum(1.0 - along**2, 1e-12)
    dipole = (np.cos(half * along) - np.cos(half)) ** 2 / across
    return np.where(zenith_angle < np.pi / 2, dipole * np.sin(wave_number * 0.8 * np.cos(zenith_angle)) ** 2, 0.0)


def chromaticity(temperature: np.ndarray, region: np.ndarray, nside: int, lst: float) -> np.ndarray:
    """Beam-weighted temperature K (n_channels, n_regions) of each region at 230 MHz, averaged over two hours."""
    total = np.zeros((len(FREQUENCY), len(INDICES)))
    steps = lst + np.linspace(-0.875, 0.875, 8)
    for time in steps:
        angles = horizon(nside, time)
        for i, nu in enumerate(FREQUENCY):
            gain = beam(*angles, nu)
            total[i] += np.bincount(region, gain * temperature, len(INDICES)) / gain.sum()
    return total / len(steps)


def foreground(K: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Spectra (..., n_channels) in K for spectral indices (..., n_regions)."""
    powers = (FREQUENCY / REFERENCE)[:, None] ** -np.asarray(indices)[..., None, :]
    return (K * powers).sum(axis=-1) + T_CMB


def make(folder: Path, emulator: str, nside: int, n_spectra: int, seed: int) -> None:
    """Write the observation: a spectrum, K and modes for each time bin, the true parameters, and the run files."""
    from lstmfit.likelihoods.interpolation import interpolation_matrix
    from lstmfit.simulators import load
    from lstmfit.simulators.protocol import outputs_of

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    simulator = load(emulator)
    outputs = outputs_of(simulator(np.array([THETA[emulator][p.name] for p in simulator.parameters])))
    signal = interpolation_matrix(simulator.redshifts, FREQUENCY) @ outputs["signal"] / 1000.0
    temperature, region = sky(nside, rng)
    for name, lst in LST.items():
        K = chromaticity(temperature, region, nside, lst)
        clean = foreground(K, INDICES)
        sigma = clean / np.sqrt(0.5e6 * 3600.0 * HOURS)
        measured = clean + signal + sigma * rng.standard_normal(len(FREQUENCY))
        columns = np.column_stack([FREQUENCY, measured, sigma, signal])
        with replacing(folder / f"{name}.csv") as temporary:
            np.savetxt(temporary, columns, delimiter=",", fmt="%.17g", comments="",
                       header="frequency [MHz],T_sky [K],sigma [K],true signal [K]")  # fmt: skip
        np.savez(folder / f"K_{name}.npz", K=K, frequencies=FREQUENCY)
        spectra = foreground(K, rng.uniform(*PRIOR, (n_spectra, len(INDICES))))
        np.savez(folder / f"spectra_{name}.npz", spectra=spectra, frequencies=FREQUENCY, noise=sigma)
        # As `lstmfit modes spectra_lst0.npz -o modes_lst0.h5 -n 12` does.
        modes = make_modes(folder / f"spectra_{name}.npz", MODES)
        modes.write(folder / f"modes_{name}.h5")
        print(f"{name}: {clean[40]:.0f} K and noise of {1e3 * sigma[40]:.1f} mK at 75 MHz; {MODES} modes leave "
              f"{1e3 * modes.rms[-1]:.2f} mK rms of the training set")  # fmt: skip
    truth = THETA[emulator] | {f"beta_{i}": float(beta) for i, beta in enumerate(INDICES)}
    write_text(folder / "truth.json", json.dumps(truth, indent=2) + "\n")
    for name, content in run_files(emulator).items():
        write_text(folder / f"{name}.yaml", dump_yaml(content))


def run_files(emulator: str) -> dict[str, dict]:
    """Run files by name: each foreground model with all time bins, and the basis with a single bin."""
    betas = [f"beta_{i}" for i in range(len(INDICES))]
    models = {
        "regions": lambda name: {"model": "regions", "file": f"K_{name}.npz", "marginalise": True},
        "regions_sampled": lambda name: {"model": "regions", "file": f"K_{name}.npz"},
        "basis": lambda name: {"model": "basis", "file": f"modes_{name}.h5"},
        "log_polynomial": lambda name: {"model": "log_polynomial", "terms": TERMS, "scale": 1e4},
    }
    runs = {}
    for model, block in models.items():
        runs[model] = {
            "emulator": emulator,
            "data": {name: {"file": f"{name}.csv"} for name in LST},
            "likelihood": {
                name: {"class": "global_signal", "data": name, "foreground": block(name)}
                | ({"shared": betas} if "regions" in model else {})
                for name in LST
            },
            "sampler": {"polychord": {**LIVE[model == "regions_sampled"], "precision_criterion": 0.001, "seed": 1}},
        }
    one = next(iter(LST))
    runs["basis_one_bin"] = runs["basis"] | {
        "data": {"file": f"{one}.csv"},
        "likelihood": {"global_signal": {"foreground": models["basis"](one)}},
    }
    return runs


def fit_all(folder: Path, emulator: str, jobs: int | None) -> None:
    """Fit every run file; a finished or interrupted fit is resumed."""
    from lstmfit.driver import fit

    for name in run_files(emulator):
        output = folder / name
        fit(folder / f"{name}.yaml", output, jobs=jobs, resume=output.is_dir())


def table(folder: Path, emulator: str) -> str:
    """Evidence, goodness of fit and distance from the truth of each fit, in Markdown."""
    truth = json.loads((folder / "truth.json").read_text())
    header = [
        "fit", "parameters", "ln Z", "chi-square / dof", "p", "largest (mean - truth) / sigma",
        *(f"sigma of log10 {key}" for key in SHOWN[emulator]), "ln L calls", "wall [s]",
    ]  # fmt: skip
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name in run_files(emulator):
        summary = json.loads((folder / name / "summary.json").read_text())
        figures, pulls = summary["fit"], {}
        for key, p in summary["parameters"].items():
            true = truth[key] if not p.get("log10") else np.log10(truth[key])
            pulls[key] = (p["mean"] - true) / p["std"]
        worst = max(pulls, key=lambda key: abs(pulls[key]))
        widths = [f"{summary['parameters'][key]['std']:.3f}" for key in SHOWN[emulator]]
        cells = [
            f"`{name}`", len(pulls), f"{summary['logZ']:.1f} ± {summary['logZ_err']:.1f}",
            f"{figures['chi2']:.0f} / {figures['dof']:.0f}", f"{figures['p_value']:.2g}",
            f"{pulls[worst]:+.1f} ({worst})", *widths, f"{summary['n_like']:,}", f"{summary['wall_s']:.0f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def calibration_table(folder: Path, model: str) -> str:
    """Coverages, ranks and distances from the truth of a calibration of one model, in Markdown."""
    figures = json.loads((folder / f"calibration_{model}" / "calibration.json").read_text())
    levels = (50, 68, 90, 95)
    lines = [
        f"| `{model}` | coverage of 50 % | 68 % | 90 % | 95 % | p of the ranks | mean z | std of z |",
        "|" + "---|" * 8,
    ]
    for name, p in figures["parameters"].items():
        cells = [f"{p[f'coverage_{level}']:.2f}" for level in levels]
        cells += [f"{p['rank_ks_p']:.2f}", f"{p['z_mean']:.2f} ± {p['z_mean_err']:.2f}", f"{p['z_std']:.2f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def laplace(folder: Path) -> None:
    """Compare Laplace's method with importance sampling at points of the posterior of the fit with `regions`."""
    from lstmfit.analysis.chains import equal_weight, read_run

    run, rng = read_run(folder / "regions"), np.random.default_rng(0)
    (joint,) = run.problem.likelihoods.values()
    truth = json.loads((folder / "truth.json").read_text())
    errors, efficiencies, indices = [], [], []
    for theta in equal_weight(run, N_POINTS, rng):
        signal = run.problem.signal_at(theta)
        error, efficiency = joint.error(signal, np.empty(0), N_PROPOSED, rng)
        errors.append(error)
        efficiencies.append(efficiency)
    for theta in equal_weight(run, 1000, rng):
        indices.append(joint.coefficients(run.problem.signal_at(theta), np.empty(0), rng)["lst0"])
    print(f"ln L at {N_POINTS} points of the posterior: exact - Laplace = {np.mean(errors):.3f} on average, standard "
          f"deviation {np.std(errors):.3f}, efficiency of the Gaussian {np.mean(efficiencies):.2f}")  # fmt: skip
    print(f"ln Z: exact - Laplace = {np.log(np.mean(np.exp(errors))):.3f}")
    for i, (mean, std) in enumerate(zip(np.mean(indices, axis=0), np.std(indices, axis=0))):
        true = truth[f"beta_{i}"]
        print(f"beta_{i}: {mean:.5f} +- {std:.5f}, (mean - truth) / sigma = {(mean - true) / std:+.2f}")


def picture(folder: Path, emulator: str, path: Path) -> None:
    """Posterior of the signal by each fit: 95 % bands around the truth."""
    from lstmfit.analysis.chains import equal_weight, read_run
    from lstmfit.analysis.plots import new_figure, save
    from lstmfit.constants import redshift_to_frequency

    figure = new_figure(figsize=(11.0, 3.4), layout="constrained")
    names = tuple(run_files(emulator))
    axes = figure.subplots(1, len(names), sharey=True)
    for axis, name in zip(axes, names):
        run = read_run(folder / name)
        nu = redshift_to_frequency(run.problem.signal.redshifts)
        curves = np.array([run.problem.signal_at(t) for t in equal_weight(run, 500, np.random.default_rng(0))])
        inside = (nu > FREQUENCY.min() - 5) & (nu < FREQUENCY.max() + 5)
        for q, alpha in ((95, 0.25), (68, 0.5)):
            low, high = np.percentile(curves, (50 - q / 2, 50 + q / 2), axis=0)
            axis.fill_between(nu[inside], low[inside], high[inside], color="#1f5fa8", alpha=alpha, lw=0)
        rows = np.loadtxt(folder / f"{next(iter(LST))}.csv", delimiter=",", skiprows=1)
        axis.plot(rows[:, 0], 1000.0 * rows[:, 3], "--", color="#c8321e", lw=1.2)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("frequency [MHz]")
    axes[0].set_ylabel("$T_{21}$ [mK]")
    save(figure, path)


def main():
    """Make, fit or describe the observation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("make", "fit", "laplace", "results"))
    parser.add_argument("-o", "--output", type=Path, default=Path("observation"))
    parser.add_argument("--emulator", choices=tuple(THETA), default="echo21", help="model of the signal")
    parser.add_argument("--nside", type=int, default=NSIDE, help="resolution of the map")
    parser.add_argument("--spectra", type=int, default=N_SPECTRA, help="size of the training set of the modes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int)
    options = parser.parse_args()
    if options.step == "make":
        make(options.output, options.emulator, options.nside, options.spectra, options.seed)
    elif options.step == "fit":
        fit_all(options.output, options.emulator, options.jobs)
    elif options.step == "laplace":
        laplace(options.output)
    else:
        of_echo21 = options.emulator == "echo21"
        fits = table(options.output, options.emulator)
        replace_in_page("observation.md", "fits" if of_echo21 else f"fits of {options.emulator}", fits)
        if of_echo21:
            picture(options.output, options.emulator, IMAGES / "observation.png")
            for model in ("basis", "regions"):
                replace_in_page("observation.md", f"calibration {model}", calibration_table(options.output, model))


if __name__ == "__main__":
    main()
