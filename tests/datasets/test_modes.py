"""Modes of a set of spectra: against NumPy, as a foreground, at the command line, and bad input."""

import json

import h5py
import numpy as np
import pytest
from helpers import lstmfit
from scipy import stats

from lstmfit.datasets.modes import make_modes, read_spectra
from lstmfit.datasets.spectrum import Spectrum
from lstmfit.errors import InputError
from lstmfit.likelihoods import make_likelihood

NU = np.linspace(50.0, 110.0, 41)
NOISE = 0.01 + 0.05 * (NU / 50.0) ** -2.5
Z = np.linspace(11.5, 28.0, 40)


def sky(n, seed=1):
    """(n, channels) K: a Galaxy and extragalactic sources with spectral indices that vary."""
    rng = np.random.default_rng(seed)
    log = np.log(NU / 75.0)
    galaxy = rng.normal(1500.0, 50.0, (n, 1)) * np.exp(np.outer(rng.normal(-2.55, 0.02, n), log))
    sources = rng.normal(200.0, 10.0, (n, 1)) * np.exp(np.outer(rng.normal(-2.7, 0.02, n), log))
    return galaxy * (1.0 + 0.01 * np.sin(NU / 4.0)) + sources


def write(path, unit="K", **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        if unit is not None:
            file.attrs["unit"] = unit
    return path


@pytest.fixture
def training(tmp_path):
    return write(tmp_path / "spectra.h5", spectra=sky(300), frequencies=NU)


@pytest.mark.parametrize("weighted", [False, True])
def test_modes_are_the_principal_components(weighted, training, tmp_path):
    np.savetxt(tmp_path / "noise.txt", NOISE)
    made = make_modes(training, 5, tmp_path / "noise.txt" if weighted else None)
    spectra, sigma = sky(300), NOISE if weighted else np.ones(len(NU))
    np.testing.assert_allclose(made.mean, spectra.mean(axis=0), rtol=1e-13)
    white = made.basis / sigma[:, None]
    np.testing.assert_allclose(white.T @ white, np.eye(5), atol=1e-10)
    # Independently: the eigenvectors of the weighted covariance.
    values, vectors = np.linalg.eigh(np.cov((spectra / sigma).T))
    np.testing.assert_allclose(made.variance[:3], values[::-1][:3], rtol=1e-9)
    np.testing.assert_allclose(np.abs(white[:, :3].T @ vectors[:, ::-1][:, :3]), np.eye(3), atol=1e-6)
    coefficients = ((spectra - made.mean) / sigma) @ white
    np.testing.assert_allclose(np.cov(coefficients.T), np.diag(made.variance), atol=1e-9 * made.variance[0])
    for i in range(6):
        rest = spectra - made.mean - coefficients[:, :i] @ made.basis[:, :i].T
        assert made.rms[i] == pytest.approx(np.sqrt((rest**2).mean()), rel=1e-5)
        assert made.largest[i] == pytest.approx(np.abs(rest).max(), rel=1e-5)
    assert made.basis[np.abs(white).argmax(axis=0), np.arange(5)].min() > 0


def test_the_noise_may_be_in_the_set_and_units_are_converted(tmp_path, training):
    np.savetxt(tmp_path / "noise.txt", np.c_[1e6 * NU, NOISE], header="freq[Hz] sigma")
    in_kelvin = make_modes(training, 4, tmp_path / "noise.txt")
    other = write(tmp_path / "mk.h5", "mK", spectra=1e3 * sky(300), frequencies=NU, noise=1e3 * NOISE)
    made = make_modes(other, 4)
    np.savez(tmp_path / "set.npz", spectra=sky(300), frequencies=NU, noise=NOISE)
    for modes in (made, make_modes(tmp_path / "set.npz", 4)):
        np.testing.assert_allclose(modes.basis, in_kelvin.basis, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(modes.variance, in_kelvin.variance, rtol=1e-9)
        np.testing.assert_allclose(modes.noise, NOISE, rtol=1e-12)
    assert read_spectra(other).unit == "K"


def test_the_foreground_reads_them(training, tmp_path):
    """A spectrum of the same sky, which is not in the set: dense evidence, and residuals at the level of the noise."""
    made = make_modes(training, 6)
    made.write(tmp_path / "modes.h5")
    rng = np.random.default_rng(2)
    keep = NU > 60.0
    nu = NU[keep]
    temperature = 1e3 * sky(1, seed=9)[0, keep] + 20.0 * rng.standard_normal(len(nu))
    block = {"noise": {"sigma": 20}, "foreground": {"model": "basis", "file": str(tmp_path / "modes.h5")}}
    likelihood = make_likelihood("global_signal", Z, block, Spectrum(nu, temperature, np.ones(len(nu))))
    basis = 1e3 * made.basis[keep]
    covariance = 400.0 * np.eye(len(nu)) + (basis * made.variance) @ basis.T
    expected = stats.multivariate_normal(1e3 * made.mean[keep], covariance).logpdf(temperature)
    assert likelihood(np.zeros(len(Z)), np.empty(0)) == pytest.approx(expected, rel=1e-7)
    assert 0.4 < likelihood.chi_square(np.zeros(len(Z)), np.empty(0)) / (len(nu) - 6) < 1.9


def test_the_command(training, tmp_path):
    done = lstmfit("modes", "spectra.h5", "-o", "modes.h5", "-n", 4, "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content, made = json.loads(done.stdout), make_modes(training, 4)
    assert content["n_spectra"] == 300
    np.testing.assert_allclose(content["rms_mK"], 1e3 * made.rms)
    np.testing.assert_allclose(content["std"], np.sqrt(made.variance))
    assert len(content["max_mK"]) == 5
    assert "modes.h5: 4 modes of 300 spectra, 41 channels" in done.stderr
    with h5py.File(tmp_path / "modes.h5") as file:
        assert {name: file[name].shape for name in file} == {
            "basis": (41, 4), "mean": (41,), "covariance": (4, 4), "frequencies": (41,)
        }  # fmt: skip
        assert file.attrs["unit"] == "K"
    before = training.read_bytes()
    for target, options, message in [
        ("modes.h5", [], "modes.h5 already exists; use --force to replace it"),
        ("spectra.h5", ["--force"], "spectra.h5 is an input of this command; give another file with -o"),
        ("none/modes.h5", [], "there is no folder none"),
    ]:
        done = lstmfit("modes", "spectra.h5", "-o", target, *options, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    assert training.read_bytes() == before
    assert lstmfit("modes", "spectra.h5", "-o", "modes.h5", "-n", 5, "--force", cwd=tmp_path).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"spectra.h5", "modes.h5"}


def test_bad_sets_are_refused(tmp_path):
    good = {"spectra": sky(30), "frequencies": NU}
    hole = sky(30)
    hole[4, 7] = np.nan
    cases = [
        ({"spectra": sky(30)}, 3, r"has no array frequencies \(n_channels,\) in MHz; add it"),
        ({"frequencies": NU}, 3, "has no array spectra; it has frequencies"),
        (good | {"spectra": sky(30).T}, 3, r"spectra has shape \(41, 30\) for 41 frequencies; one row for each spectr"),
        (good | {"spectra": NU}, 3, r"spectra has shape \(41,\)"),
        (good | {"spectra": hole}, 3, "1 of 30 spectra have NaN or infinite values, the first is number 4; remove"),
        (good, 30, "30 modes of 30 spectra with 41 channels; give 1 to 29"),
        (good, 0, "0 modes of 30 spectra"),
        (good | {"spectra": sky(1)}, 1, "has 1 spectra with 41 channels; at least 2 of each are needed"),
        (good | {"spectra": np.outer(np.arange(1.0, 31.0), sky(1)[0])}, 2, "have 1 independent modes, not 2; use -n 1"),
        (good | {"spectra": np.tile(sky(1), (30, 1))}, 1, "all 30 spectra are equal, so there are no modes"),
        (good | {"noise": -NOISE}, 3, "the noise must be one positive number in K for each of the 41 channels"),
        (good | {"noise": NOISE[:-1]}, 3, "the noise must be one positive number in K"),
    ]
    for arrays, n, message in cases:
        with pytest.raises(InputError, match=message) as error:
            make_modes(write(tmp_path / "set.h5", **arrays), n)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no set of spectra"):
        make_modes(tmp_path / "none.h5", 3)
    np.savetxt(tmp_path / "short.txt", NOISE[:-1])
    with pytest.raises(InputError, match=r"short.txt has 40 rows, but the data have 41 channels"):
        make_modes(write(tmp_path / "set.h5", **good), 3, tmp_path / "short.txt")
