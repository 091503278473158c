"""Foregrounds from files, basis and regions: against dense computations, in mocks, run files and run folders."""

import copy
import json
import pickle
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from scipy import stats

from lstmfit import run_folder
from lstmfit.analysis.chains import read_run
from lstmfit.analysis.same_problem import compared
from lstmfit.config import load
from lstmfit.constants import redshift_to_frequency
from lstmfit.data import make_data
from lstmfit.datasets.channel_files import Kept
from lstmfit.datasets.spectrum import Spectrum, read_spectrum, read_written_spectrum
from lstmfit.driver import fit
from lstmfit.errors import InputError
from lstmfit.likelihoods import make_likelihood
from lstmfit.likelihoods.foregrounds import FOREGROUNDS
from lstmfit.likelihoods.interpolation import interpolation_matrix
from lstmfit.problem import build
from lstmfit.run_folder import load_problem
from lstmfit.signal_functions import make_signal

Z = np.linspace(12.0, 26.0, 29)
NU = np.linspace(54.0, 105.0, 24)
WEIGHT = np.linspace(0.5, 2.0, 24)
SIGNAL = -100.0 * np.exp(-0.5 * ((Z - 17.0) / 2.0) ** 2)
BASIS = np.stack([(NU / 75.0) ** -2.5, (NU / 75.0) ** -2.6 * np.sin(NU / 5.0), (NU / 75.0) ** -2.1, np.cos(NU)], axis=1)
MEAN = 1700.0 * (NU / 75.0) ** -2.53
COVARIANCE = np.array([[9.0, 1.5, -0.6, 0.1], [1.5, 4.0, 0.2, 0.0], [-0.6, 0.2, 1.0, 0.05], [0.1, 0.0, 0.05, 0.25]])
TRUE = np.array([2.0, -1.0, 0.5, 0.3])
K = np.stack([900.0 + 2.0 * NU, 300.0 * np.exp(-((NU - 80.0) / 30.0) ** 2), 50.0 + np.sin(NU)], axis=1)
BETAS = np.array([2.5, 2.7, 3.0])


def data(rng=None, sky=None):
    """A spectrum in mK at NU."""
    rng = np.random.default_rng(3) if rng is None else rng
    sky = MEAN + BASIS @ TRUE if sky is None else sky
    signal = interpolation_matrix(Z, NU) @ SIGNAL
    return Spectrum(NU, 1000.0 * sky + signal + 25.0 / np.sqrt(WEIGHT) * rng.standard_normal(len(NU)), WEIGHT)


def likelihood(spectrum, noise=25, **foreground):
    options = {"noise": {"sigma": noise}, "foreground": foreground}
    return make_likelihood("global_signal", Z, options, spectrum)


def hdf5(path, unit=None, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        if unit is not None:
            file.attrs["unit"] = unit
    return str(path)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def text(path, array, header=""):
    np.savetxt(path, array, header=header, fmt="%.17g")
    return str(path)


def npy(path, array):
    np.save(path, array)
    return str(path)


FORMATS = {
    "npy": lambda folder, m: npy(folder / "m.npy", m),
    "single precision": lambda folder, m: npy(folder / "m.npy", m.astype(np.float32)),
    "text": lambda folder, m: text(folder / "m.txt", m),
    "text with frequencies": lambda folder, m: text(folder / "m.txt", np.c_[NU, m], "nu[MHz] a b c d"),
    "text with frequencies in Hz, reversed": lambda folder, m: text(
        folder / "m.txt", np.c_[m, 1e6 * NU][::-1], "a b c d freq[Hz]"
    ),
    "npz": lambda folder, m: npz(folder / "m.npz", basis=m),
    "npz with another name": lambda folder, m: npz(folder / "m.npz", anything=m, frequencies=NU),
    "HDF5": lambda folder, m: hdf5(folder / "m.h5", basis=m),
    "HDF5 with frequencies, more channels, another order": lambda folder, m: hdf5(
        folder / "m.h5", basis=np.r_[m[::-1], np.ones((3, 4))], frequencies=np.r_[NU[::-1], 40.0, 41.0, 120.0]
    ),
    "HDF5 in mK": lambda folder, m: hdf5(folder / "m.h5", unit="mK", modes=1e3 * m),
}


def dense(spectrum, sigma, basis, covariance, mean=None):
    """Ln of the marginal likelihood as a Gaussian in all channels, in mK."""
    expected = interpolation_matrix(Z, spectrum.frequency) @ SIGNAL + (0.0 if mean is None else 1e3 * mean)
    total = np.diag(sigma**2 / spectrum.weight) + 1e6 * basis @ covariance @ basis.T
    return stats.multivariate_normal(expected, total).logpdf(spectrum.temperature)


@pytest.mark.parametrize("form", FORMATS)
def test_a_basis_in_any_format_has_the_dense_marginal_likelihood(form, tmp_path):
    spectrum = data(sky=BASIS @ TRUE)
    basis = BASIS.astype(np.float32).astype(float) if form == "single precision" else BASIS
    made = likelihood(spectrum, model="basis", file=FORMATS[form](tmp_path, BASIS), scale=[3.0, 2.0, 1.0, 0.5])
    expected = dense(spectrum, 25.0, basis, np.diag([9.0, 4.0, 1.0, 0.25]))
    assert made(SIGNAL, np.empty(0)) == pytest.approx(expected, rel=1e-9)
    assert made.n_marginalised == 4


@pytest.mark.parametrize("mean", ["in the file", "a file of its own", "none"])
@pytest.mark.parametrize("prior", ["in the file", "a file of its own", "scale"])
@pytest.mark.parametrize("terms", [None, 2])
def test_mean_covariance_and_terms(mean, prior, terms, tmp_path):
    arrays, options = {"basis": BASIS, "frequencies": NU}, {}
    if mean == "in the file":
        arrays["mean"] = MEAN
    elif mean == "a file of its own":
        options["mean"] = text(tmp_path / "mean.txt", np.c_[NU, MEAN], "frequency temperature")
    if prior == "in the file":
        arrays["covariance"] = COVARIANCE
    elif prior == "a file of its own":
        options["covariance"] = npy(tmp_path / "covariance.npy", COVARIANCE)
    else:
        # It replaces the covariance of the file.
        arrays["covariance"] = COVARIANCE
        options["scale"] = 2.0
    covariance = 4.0 * np.eye(4) if prior == "scale" else COVARIANCE
    offset = None if mean == "none" else MEAN
    spectrum = data(sky=BASIS @ TRUE + (0.0 if offset is None else offset))
    made = likelihood(
        spectrum, "free", model="basis", file=hdf5(tmp_path / "m.h5", **arrays), **options, terms=terms,
    )  # fmt: skip
    for sigma in (25.0, 40.0, 25.0):
        expected = dense(spectrum, sigma, BASIS[:, :terms], covariance[:terms, :terms], offset)
        assert made(SIGNAL, np.array([sigma])) == pytest.approx(expected, rel=1e-9)


def test_correlated_coefficients_follow_their_posterior(tmp_path, rng):
    file = hdf5(tmp_path / "m.h5", basis=BASIS, covariance=COVARIANCE, mean=MEAN)
    spectrum = data()
    made = likelihood(spectrum, model="basis", file=file)
    basis, inverse = 1e3 * BASIS, WEIGHT / 625.0
    residual = spectrum.temperature - interpolation_matrix(Z, NU) @ SIGNAL - 1e3 * MEAN
    precision = (basis.T * inverse) @ basis + np.linalg.inv(COVARIANCE)
    covariance = np.linalg.inv(precision)
    expected = covariance @ (basis.T @ (inverse * residual))
    np.testing.assert_allclose(made.coefficients(SIGNAL, np.empty(0)), expected, rtol=1e-7)
    sky = 1e3 * MEAN + basis @ expected
    np.testing.assert_allclose(made.foreground(SIGNAL, np.empty(0)), sky, rtol=1e-10)
    draws = np.array([made.coefficients(SIGNAL, np.empty(0), rng) for _ in range(4000)])
    width = np.sqrt(np.diag(covariance))
    assert np.abs((draws.mean(axis=0) - expected) / (width / np.sqrt(4000))).max() < 4
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(width, width), covariance / np.outer(width, width), atol=0.1)


def test_mocks_of_a_basis_are_drawn_from_its_prior(tmp_path):
    made = likelihood(data(), 1e-3, model="basis", file=hdf5(tmp_path / "m.h5", basis=BASIS, covariance=COVARIANCE))
    rng = np.random.default_rng(5)
    mocks = [made.mocked([SIGNAL, np.empty(0)], rng) for _ in range(3000)]
    sky = np.array([m.temperature - m.truth for m in mocks])
    drawn = np.linalg.lstsq(1e3 * BASIS, sky.T, rcond=None)[0]
    width = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose(np.cov(drawn) / np.outer(width, width), COVARIANCE / np.outer(width, width), atol=0.08)
    with_mean = likelihood(data(), model="basis", file=hdf5(tmp_path / "n.h5", basis=BASIS, mean=MEAN), scale=1)
    quiet = with_mean.mocked([SIGNAL, np.empty(0)], None)
    np.testing.assert_allclose(quiet.temperature - quiet.truth, 1e3 * MEAN, rtol=1e-9)


def test_a_sampled_basis_is_the_conditional_likelihood(tmp_path):
    file = hdf5(tmp_path / "m.h5", basis=BASIS, mean=MEAN, covariance=np.diag([9.0, 4.0, 1.0, 0.25]))
    spectrum = data()
    made = likelihood(spectrum, model="basis", file=file, marginalise=False)
    assert made.names == ("a0", "a1", "a2", "a3")
    assert made.params["a1"]["prior"] == {"dist": "norm", "loc": 0.0, "scale": 2.0}
    model = interpolation_matrix(Z, NU) @ SIGNAL + 1e3 * (MEAN + BASIS @ TRUE)
    expected = stats.norm(model, 25.0 / np.sqrt(WEIGHT)).logpdf(spectrum.temperature).sum()
    assert made(SIGNAL, TRUE) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(made.residuals(SIGNAL, TRUE), spectrum.temperature - model, atol=1e-8)


@pytest.mark.parametrize("options", [{}, {"marginalise": False, "scale": [3.0, 2.0, 1.0, 0.5]}])
def test_the_form_in_jax_is_the_same(options, tmp_path):
    jax = pytest.importorskip("jax", reason="pip install jax")
    from lstmfit.likelihoods.jax_likelihood import make_loglikelihood

    file = hdf5(tmp_path / "m.h5", basis=BASIS, mean=MEAN, covariance=COVARIANCE)
    made = likelihood(data(), "free", model="basis", file=file, **options)
    values = np.array([30.0, *TRUE][: len(made.names)])
    with jax.enable_x64(True):
        assert float(make_loglikelihood(made)(SIGNAL, values)) == pytest.approx(made(SIGNAL, values), rel=1e-8)


@pytest.mark.parametrize("form", ["npy", "text with frequencies", "HDF5"])
def test_regions_agree_with_numpy(form, tmp_path):
    file = {
        "npy": lambda: npy(tmp_path / "K.npy", K),
        "text with frequencies": lambda: text(tmp_path / "K.txt", np.c_[NU, K], "frequency K0 K1 K2"),
        "HDF5": lambda: hdf5(tmp_path / "K.h5", K=K[::-1], frequencies=NU[::-1]),
    }[form]()
    sky = np.sum(K * (NU[:, None] / 230.0) ** -BETAS, axis=1) + 2.725
    component = FOREGROUNDS["regions"](file=file).build(NU)
    assert component.names == ("beta_0", "beta_1", "beta_2")
    assert component.params["beta_2"] == {"prior": {"min": 2.45844, "max": 3.14556}, "latex": r"\beta_{2}"}
    np.testing.assert_allclose(component.evaluate(BETAS), 1e3 * sky, rtol=1e-13)
    other = FOREGROUNDS["regions"](file=file, reference=408, T_cmb=0).build(NU)
    np.testing.assert_allclose(other.evaluate(BETAS), 1e3 * np.sum(K * (NU[:, None] / 408) ** -BETAS, 1), rtol=1e-13)
    spectrum = data(sky=sky)
    made = likelihood(spectrum, "free", model="regions", file=file)
    assert made.names == ("sigma", "beta_0", "beta_1", "beta_2")
    model = interpolation_matrix(Z, NU) @ SIGNAL + 1e3 * sky
    expected = stats.norm(model, 31.0 / np.sqrt(WEIGHT)).logpdf(spectrum.temperature).sum()
    assert made(SIGNAL, np.array([31.0, *BETAS])) == pytest.approx(expected, rel=1e-9)
    mock = made.mocked([SIGNAL, np.array([1e-6, *BETAS])], np.random.default_rng(1))
    np.testing.assert_allclose(mock.temperature, model, atol=1e-4)


def test_regions_survive_threads_pickles_and_copies(tmp_path, rng):
    component = FOREGROUNDS["regions"](file=npy(tmp_path / "K.npy", K)).build(NU)
    points = rng.uniform(2.5, 3.1, (400, 3))
    expected = [component.evaluate(p) for p in points]
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(list(pool.map(component.evaluate, points)), expected)
    for other in (pickle.loads(pickle.dumps(component)), copy.deepcopy(component)):
        np.testing.assert_array_equal([other.evaluate(p) for p in points], expected)
    assert component.evaluate(points[0]) is not component.evaluate(points[0])


# ---------------------------------------------------------------- channels of the data


def write_data(path, flags=None):
    spectrum = data()
    columns = {"nu": NU, "T": spectrum.temperature, "w": WEIGHT}
    if flags is not None:
        columns["flag"] = flags
    np.savetxt(path, np.column_stack(list(columns.values())), header=" ".join(columns), fmt="%.17g")
    return path


@pytest.mark.parametrize("with_frequencies", [True, False])
def test_rows_are_selected_as_the_channels_were(with_frequencies, tmp_path):
    flags = np.zeros(len(NU))
    flags[[4, 11]] = 1
    columns = {"frequency": "nu", "temperature": "T", "weight": "w"}
    spectrum = read_spectrum(write_data(tmp_path / "data.txt", flags), columns, "mK").cut(60.0, 100.0)
    keep = (flags == 0) & (NU >= 60) & (NU <= 100)
    assert spectrum.kept.n_before == len(NU)
    np.testing.assert_array_equal(spectrum.kept.number, np.flatnonzero(keep))
    arrays = {"basis": BASIS, "mean": MEAN, "covariance": COVARIANCE}
    file = npz(tmp_path / "m.npz", **arrays, **({"frequencies": NU} if with_frequencies else {}))
    expected = dense(spectrum, 25.0, BASIS[keep], COVARIANCE, MEAN[keep])
    made = likelihood(spectrum, model="basis", file=file)
    assert made(SIGNAL, np.empty(0)) == pytest.approx(expected, rel=1e-9)
    # As a run folder keeps the data.
    spectrum.write(tmp_path / "written.csv")
    again = read_written_spectrum(tmp_path / "written.csv")
    assert likelihood(again, model="basis", file=file)(SIGNAL, np.empty(0)) == made(SIGNAL, np.empty(0))
    regions = FOREGROUNDS["regions"](file=npy(tmp_path / "K.npy", K)).build(spectrum.frequency, spectrum.kept)
    whole = FOREGROUNDS["regions"](file=npy(tmp_path / "K.npy", K)).build(NU).evaluate(BETAS)
    np.testing.assert_allclose(regions.evaluate(BETAS), whole[keep], rtol=1e-14)


def test_data_without_gaps_are_written_as_before(tmp_path):
    data().write(tmp_path / "data.csv")
    assert (tmp_path / "data.csv").read_text().splitlines()[0] == "frequency_MHz,temperature_mK,weight"
    assert read_written_spectrum(tmp_path / "data.csv").kept is None
    frame = (tmp_path / "data.csv").read_text().splitlines()
    (tmp_path / "bad.csv").write_text("\n".join([frame[0] + ",channel", *(f"{line},-1.5" for line in frame[1:])]))
    with pytest.raises(ValueError, match="column channel"):
        read_written_spectrum(tmp_path / "bad.csv")


def refused(message, block, spectrum=None):
    with pytest.raises(InputError, match=message) as error:
        likelihood(data() if spectrum is None else spectrum, **({"model": "basis", "scale": 1} | block))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_bad_channels_are_refused(tmp_path):
    cut = data().cut(60.0, 100.0)
    n = len(cut.frequency)
    short = npy(tmp_path / "short.npy", BASIS[:-1])
    refused("short.npy has 23 rows, but the data have 24 channels; give one row for each channel", {"file": short})
    fitted = npy(tmp_path / "fitted.npy", BASIS[cut.kept.number])
    message = f"fitted.npy has {n} rows, but the data have 24 channels, of which {n} are fitted; give one row"
    refused(message, {"file": fitted}, cut)
    unknown = Spectrum(cut.frequency, cut.temperature, cut.weight, kept=Kept(cut.kept.number))
    two = npy(tmp_path / "two.npy", BASIS[:2])
    refused("two.npy has 2 rows, but the data have more than 20 channels, of which", {"file": two}, unknown)
    shifted = npz(tmp_path / "shifted.npz", basis=BASIS, frequencies=NU + 0.1)
    message = r"shifted.npz has no row for 24 of the 24 channels, the first at 54 MHz; its 24 frequencies are 54.1 to"
    refused(message, {"file": shifted})
    part = npz(tmp_path / "part.npz", basis=BASIS[2:], frequencies=NU[2:])
    refused("part.npz has no row for 2 of the 24 channels, the first at 54 MHz", {"file": part})
    one = npz(tmp_path / "one.npz", basis=BASIS[:1], frequencies=NU[:1])
    refused("one.npz has no row for 23 of the 24 channels", {"file": one})
    first = text(tmp_path / "first.txt", np.c_[NU, BASIS])
    refused(r"first.txt: its first column contains the frequencies of the data; name it in a header", {"file": first})
    uneven = npz(tmp_path / "uneven.npz", basis=BASIS, frequencies=NU[:-1])
    refused("uneven.npz has 23 frequencies, but 24 rows of basis", {"file": uneven})
    negative = npz(tmp_path / "negative.npz", basis=BASIS, frequencies=-NU)
    refused("frequencies must be a list of positive numbers in MHz", {"file": negative})
    hole = BASIS.copy()
    hole[0] = np.nan
    holes = npz(tmp_path / "holes.npz", basis=hole)
    refused("holes.npz: basis is not finite at 54 MHz; give finite numbers", {"file": holes})
    large = npz(tmp_path / "large.npz", basis=1e200 * BASIS)
    refused("large.npz: basis is not finite at 54 MHz; give finite numbers", {"file": large})
    # A row of a channel that is not fitted may be anything.
    assert np.isfinite(likelihood(cut, model="basis", scale=1, file=holes)(SIGNAL, np.empty(0)))
    mean = npy(tmp_path / "mean.npy", MEAN[:-1])
    refused("mean.npy has 23 rows", {"file": npy(tmp_path / "m.npy", BASIS), "mean": mean})


def test_bad_files_are_refused(tmp_path):
    good = npy(tmp_path / "m.npy", BASIS)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "words.txt").write_text("a b\n1 2\n3 four\n")
    (tmp_path / "damaged.npy").write_bytes(Path(good).read_bytes()[:100])
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 100)
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    header = b"{'descr': '<f8', 'shape': (24,".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as archive:
        archive.writestr("basis.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    twice = np.c_[BASIS, BASIS[:, 1]]
    cases = [
        ({"file": str(tmp_path / "none.npy")}, "no foreground file .*none.npy; a path is relative to the folder"),
        ({"file": str(tmp_path)}, "no foreground file"),
        ({"file": ""}, "foreground file is ''"),
        ({"file": str(tmp_path / "empty.txt")}, "empty.txt"),
        ({"file": str(tmp_path / "words.txt")}, "words.txt: column 1 is not a number in data row 2; correct it"),
        ({"file": str(tmp_path / "damaged.npy")}, "damaged.npy cannot be read as a foreground file"),
        ({"file": str(tmp_path / "damaged.h5")}, "damaged.h5 is not a complete foreground file .*; create it again"),
        ({"file": str(tmp_path / "objects.npy")}, "objects.npy cannot be read as a foreground file"),
        ({"file": str(tmp_path / "header.npz")}, "header.npz is not a complete .npz file .*; copy or create it again"),
        ({"file": npz(tmp_path / "two.npz", a=BASIS, b=BASIS)}, "two.npz has no array basis; it has a, b"),
        ({"file": hdf5(tmp_path / "two.h5", a=BASIS, b=BASIS)}, "two.h5 has no array basis; it has a, b"),
        ({"file": hdf5(tmp_path / "mk.h5", unit="uK", basis=BASIS)}, "attribute unit is 'uK'; expected K or mK"),
        ({"file": npy(tmp_path / "complex.npy", BASIS * 1j)}, "has type complex128, but real numbers are expected"),
        ({"file": npy(tmp_path / "cube.npy", np.ones((24, 2, 2)))}, r"basis has shape \(24, 2, 2\), but \(channels, c"),
        ({"file": text(tmp_path / "nu.txt", NU, "frequency")}, "nu.txt only has a column of frequencies"),
        ({"file": npy(tmp_path / "twice.npy", twice)}, "the 5 columns of twice.npy are not independent on these 24"),
        ({"file": npy(tmp_path / "zero.npy", BASIS * [1, 0, 1, 1])}, "remove the columns that are zero or repeated"),
        ({"file": npy(tmp_path / "wide.npy", np.ones((24, 24)))}, "24 terms for 24 channels; use at least 1 and fewer"),
        ({"file": good, "terms": 5}, "5 terms, but m.npy has 4 columns; use fewer terms"),
        ({"file": good, "scale": [1, 2]}, "scale has 2 numbers for 4 terms"),
        ({"file": good, "scale": None}, "m.npy has no array covariance for the prior of its coefficients; give scale"),
        ({"file": good, "covariance": good}, "foreground: covariance and scale are both given; give one of them"),
        ({"file": good, "mean": good}, r"mean has shape \(24, 4\), but \(channels,\) is expected"),
        ({"file": good, "marginalize": True}, "unknown key foreground.marginalize; did you mean 'marginalise'"),
        ({}, "foreground.file is missing"),
    ]
    for block, message in cases:
        refused(message, block)


def test_bad_covariances_are_refused(tmp_path):
    file = npy(tmp_path / "m.npy", BASIS)
    skew, indefinite = COVARIANCE.copy(), COVARIANCE.copy()
    skew[0, 1], indefinite[0, 0] = 7.0, -1.0
    for i, (bad, message) in enumerate(
        [
            (COVARIANCE[:3], r"has shape \(3, 4\) for 4 terms; give \(4, 4\)"),
            (COVARIANCE[:3, :3], r"has shape \(3, 3\) for 4 terms; give \(4, 4\)"),
            (skew, "is not a finite, symmetric and positive definite matrix; estimate it from more spectra"),
            (indefinite, "is not a finite, symmetric and positive definite matrix"),
            (np.full((4, 4), np.nan), "is not a finite, symmetric and positive definite matrix"),
            (np.ones((4, 4)), "is not a finite, symmetric and positive definite matrix"),
        ]
    ):
        refused(message, {"file": file, "scale": None, "covariance": npy(tmp_path / f"c{i}.npy", bad)})
    correlated = {"file": file, "scale": None, "covariance": npy(tmp_path / "c.npy", COVARIANCE), "marginalise": False}
    refused("the covariance has correlations, but sampled coefficients have independent priors; omit", correlated)


def test_bad_regions_are_refused(tmp_path):
    unseen = npy(tmp_path / "unseen.npy", K * [1, 1, 0])
    for block, message in [
        ({"file": unseen}, "column 2 of unseen.npy is zero in all 24 channels, so its spectral index has no effect"),
        ({"file": npy(tmp_path / "K.npy", K), "terms": 2}, "unknown key foreground.terms"),
        ({"file": npy(tmp_path / "K.npy", K), "reference": 2.3e8}, "reference is 2.3e.08 MHz, but the data span"),
        ({"file": npy(tmp_path / "K.npy", K), "T_cmb": -1}, "T_cmb"),
        ({}, "foreground.file is missing"),
    ]:
        with pytest.raises(InputError, match=message):
            likelihood(data(), model="regions", **block)


# ---------------------------------------------------------------- run files

SHAPE = {"A": 150.0, "nu_0": 78.0, "w": 19.0, "tau": 7.0}
GRID = redshift_to_frequency(make_signal(load({
    "signal": "flattened_gaussian", "data": {"mock": {"theta": SHAPE, "noise": 25, "seed": 1}},
    "likelihood": {"global_signal": {"noise": {"sigma": 25}}},
})).redshifts)  # fmt: skip


def run(mock, foreground, **changes):
    """A mock of the flattened Gaussian between 60 and 100 MHz; only the foreground is free."""
    return {
        "signal": "flattened_gaussian",
        "data": {"mock": {"theta": SHAPE, "noise": 25, "seed": 2, "foreground": mock}, "band": [60, 100]},
        "likelihood": {"global_signal": {"noise": {"sigma": 25}, "foreground": foreground}},
        "params": SHAPE,
        "sampler": {"polychord": {"nlive": 40, "num_repeats": 4, "seed": 1}},
    } | changes


def grid_arrays():
    y = GRID / 75.0
    basis = np.stack([y**-2.5, y**-2.5 * np.log(y)], axis=1)
    weights = np.stack([90.0 + 0.1 * GRID, 60.0 * np.exp(-((GRID - 80.0) / 30.0) ** 2)], axis=1)
    return basis, 1700.0 * y**-2.6, weights


@pytest.mark.parametrize("with_frequencies", [True, False])
def test_mocks_with_these_foregrounds(with_frequencies, tmp_path):
    basis, mean, weights = grid_arrays()
    nu = {"frequencies": GRID} if with_frequencies else {}
    modes = npz(tmp_path / "m.npz", basis=basis, mean=mean, covariance=np.diag([4.0, 1.0]), **nu)
    regions = npz(tmp_path / "K.npz", K=weights, **nu)
    inside = (GRID >= 60) & (GRID <= 100)
    for mock, foreground, sky, names in [
        ({"model": "basis", "file": modes, "coefficients": [2.0, -0.5]}, {"model": "basis", "file": modes},
         mean + basis @ [2.0, -0.5], ("a0", "a1")),
        ({"model": "basis", "file": modes, "coefficients": [2.0]}, {"model": "basis", "file": modes, "terms": 1},
         mean + 2.0 * basis[:, 0], ("a0",)),
        ({"model": "regions", "file": regions, "coefficients": [2.5, 2.8]}, {"model": "regions", "file": regions},
         np.sum(weights * (GRID[:, None] / 230.0) ** -np.array([2.5, 2.8]), axis=1) + 2.725, ("beta_0", "beta_1")),
    ]:  # fmt: skip
        config = load(run(mock, foreground))
        signal = make_signal(config)
        spectrum = make_data(config, signal)["global_signal"]
        np.testing.assert_array_equal(spectrum.frequency, GRID[inside])
        residual = (spectrum.temperature - spectrum.truth - 1e3 * sky[inside]) / 25.0
        assert np.abs(residual).max() < 5
        assert residual.std() == pytest.approx(1.0, abs=0.2)
        problem = build(config, {"global_signal": spectrum})
        truth = problem.truth
        assert [truth[name] for name in names] == mock["coefficients"]
        assert np.isfinite(problem.loglikelihood(np.array([truth[name] for name in problem.names]))[0])
    other = load(run(mock, foreground | {"T_cmb": 0.0}))
    assert "beta_0" not in build(other).truth


def test_bad_mocks_are_refused(tmp_path):
    basis, _, weights = grid_arrays()
    regions = npy(tmp_path / "K.npy", weights)
    good = {"model": "regions", "file": regions}
    for mock, message in [
        ({"model": "regions", "file": regions, "coefficients": [2.5]}, "1 coefficients for 2 regions; give one spec"),
        ({"model": "regions", "coefficients": [2.5]}, "data.mock.foreground.file is missing"),
        ({"model": "basis", "file": npy(tmp_path / "m.npy", basis), "coefficients": [1, 2, 3]}, "3 terms, but m.npy"),
        ({"reference": 75, "file": regions, "coefficients": [1.0]}, "unknown key data.mock.foreground.file"),
        ({"model": "hills", "coefficients": [1.0]}, "reference is missing"),
        ({"model": "regoins", "file": regions, "coefficients": [1.0]}, "did you mean 'regions'"),
        ({"model": "regions", "file": regions, "coefficients": [1.0], "fiel": 3}, "did you mean 'file'"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            build(load(run(mock, good)))
        assert "\n" not in str(error.value)


def test_files_are_looked_for_beside_the_run_file(tmp_path):
    foreground = {"model": "basis", "file": "m.npz", "mean": "mean.txt", "covariance": "c.npy"}
    content = run({"model": "basis", "file": "m.npz", "mean": "mean.txt", "coefficients": [1.0]}, foreground)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    config = load(tmp_path / "run.yaml")
    for block in (config.data["global_signal"].mock.foreground, config.likelihood["global_signal"].foreground):
        assert (Path(block.file), Path(block.mean)) == (tmp_path / "m.npz", tmp_path / "mean.txt")
    assert Path(block.covariance) == tmp_path / "c.npy"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two files of the same name, for the mock and for the fit, in different folders; and their finished run."""
    root = tmp_path_factory.mktemp("project")
    basis, mean, _ = grid_arrays()
    for name in ("sky", "fit"):
        (root / name).mkdir()
    npz(root / "sky" / "m.npz", basis=basis[:, :1], mean=mean)
    npz(root / "fit" / "m.npz", basis=basis)
    np.save(root / "covariance.npy", np.array([[4.0, 0.5], [0.5, 1.0]]))
    np.save(root / "mean.npy", mean)
    foreground = {"model": "basis", "file": "fit/m.npz", "mean": "mean.npy", "covariance": "covariance.npy"}
    mock = {"model": "basis", "file": "sky/m.npz", "coefficients": [2.0]}
    content = run(mock, foreground, params={key: SHAPE[key] for key in ("nu_0", "w", "tau")})
    (root / "run.yaml").write_text(yaml.safe_dump(content))
    fit(root / "run.yaml", root / "chain", jobs=1)
    return root


def test_a_run_folder_keeps_its_foreground(project, tmp_path):
    """Copies of all files, of which two have the same name; the rows are still those of the fitted channels."""
    folder = project / "chain"
    copies = {path.name: path.read_bytes() for path in (folder / "inputs").iterdir()}
    assert copies == {
        "m.npz": (project / "sky" / "m.npz").read_bytes(),
        "m_2.npz": (project / "fit" / "m.npz").read_bytes(),
        "mean.npy": (project / "mean.npy").read_bytes(),
        "covariance.npy": (project / "covariance.npy").read_bytes(),
    }
    before = build(load(project / "run.yaml"))
    theta = np.array([150.0])
    assert load_problem(folder).loglikelihood(theta) == before.loglikelihood(theta)
    # Resumed from its own run file, it stays as it is.
    assert fit(folder / "run.yaml", folder, resume=True) == folder
    assert {path.name for path in (folder / "inputs").iterdir()} == set(copies)
    summary = json.loads((folder / "summary.json").read_text())
    assert abs(summary["parameters"]["A"]["mean"] - 150.0) < 5 * summary["parameters"]["A"]["std"]
    read = read_run(folder)
    assert compared(read)["likelihood.global_signal.foreground"]["marginalise"]


@pytest.mark.parametrize("name", ["m_2.npz", "mean.npy", "covariance.npy"])
def test_a_foreground_file_is_held_to_its_checksum(name, project, tmp_path):
    folder = shutil.copytree(project, tmp_path / "moved") / "chain"
    load_problem(folder)
    content = (folder / "inputs" / name).read_bytes()
    (folder / "inputs" / name).write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match=f"the foreground file .*{name} has changed since the fit"):
        load_problem(folder)
    (folder / "inputs" / name).unlink()
    with pytest.raises(InputError, match=f"the foreground file .*{name} of this run is missing"):
        load_problem(folder)


def test_a_replaced_foreground_is_not_resumed(project, tmp_path):
    root = shutil.copytree(project, tmp_path / "moved")
    np.save(root / "mean.npy", 1.01 * np.load(root / "mean.npy"))
    with pytest.raises(InputError, match=r"content of likelihood.global_signal.foreground.mean"):
        fit(root / "run.yaml", root / "chain", resume=True)
    assert run_folder.state(root / "chain") == "finished"


def test_the_sampled_evidence_is_the_marginal_one(tmp_path):
    """Two coefficients, everything else fixed: the evidence of the marginalised fit is exact."""
    pytest.importorskip("nautilus", reason="pip install nautilus-sampler")
    basis, spectrum, _ = grid_arrays()
    file = npz(tmp_path / "m.npz", basis=basis, mean=spectrum, covariance=np.diag([0.04, 0.01]), frequencies=GRID)
    mock = {"model": "basis", "file": file, "coefficients": [0.2, -0.1]}
    sampler = {"nautilus": {"n_live": 200, "n_eff": 2000, "seed": 1}}
    results = []
    for marginalise in (True, False):
        foreground = {"model": "basis", "file": file, "marginalise": marginalise}
        folder = fit(run(mock, foreground, sampler=sampler), tmp_path / str(marginalise), jobs=1)
        results.append(json.loads((folder / "summary.json").read_text()))
    exact, sampled = results
    assert exact["parameters"] == {}
    assert abs(sampled["logZ"] - exact["logZ"]) < max(4 * sampled["logZ_err"], 0.05)
    assert abs(sampled["parameters"]["a0"]["mean"] - 0.2) < 5 * sampled["parameters"]["a0"]["std"]
