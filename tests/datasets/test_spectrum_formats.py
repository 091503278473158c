"""Spectra as people hold them: columns that the header names, a column of sigma, bins."""

import logging

import numpy as np
import pytest
from helpers import EDGES, small_run

from lstmfit import config as run_file
from lstmfit.data import read_data
from lstmfit.datasets.spectrum import Spectrum, read_spectrum, read_written_spectrum
from lstmfit.errors import InputError
from lstmfit.likelihoods.noise import Channels
from lstmfit.problem import build

NU = np.linspace(60.0, 90.0, 31)
SKY = 1.7e6 * (NU / 75.0) ** -2.5
SIGMA = np.linspace(20.0, 40.0, 31)


def written(path, header, *columns, separator=","):
    np.savetxt(path, np.column_stack(columns), header=header, comments="", delimiter=separator, fmt="%.17g")
    return path


# ---------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("Frequency [MHz], Weight, a: Tsky [K], b: Tres1 [K], c: Tres2 [K], d: Tmodel [K], e: T21 [K]",
         (NU, 1 + 0 * NU, SKY / 1e3, NU, NU, NU, NU)),
        ("nu,Weight,T_ant [K],Residual,T21", (NU, 1 + 0 * NU, SKY / 1e3, NU, NU)),
        ("T_mK,freq_MHz", (SKY, NU)),
        ("channel,freq [GHz],flag,T [mK]", (np.arange(31), NU / 1e3, 0 * NU, SKY)),
        ("T [mK],redshift,rms", (SKY, 1420.405751768 / NU - 1, SIGMA)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("separator", [",", ";"])
def test_columns_that_the_header_names_need_no_keys(tmp_path, caplog, header, columns, separator):
    path = written(tmp_path / "s.csv", header.replace(",", separator), *columns, separator=separator)
    with caplog.at_level(logging.INFO, "lstmfit"):
        spectrum = read_spectrum(path)
    np.testing.assert_allclose(spectrum.frequency, NU, rtol=1e-12)
    np.testing.assert_allclose(spectrum.temperature, SKY, rtol=1e-12)
    assert "columns according to the header: {" in caplog.text


@pytest.mark.skipif(not EDGES.is_file(), reason="no copy of the public spectrum at hand")
def test_the_published_edges_spectrum_needs_no_keys():
    spectrum = read_spectrum(EDGES)
    assert len(spectrum.frequency) == 123
    assert 0.8e6 < spectrum.temperature.min() < spectrum.temperature.max() < 5e6


def test_several_temperatures_are_not_guessed(tmp_path):
    path = written(tmp_path / "s.csv", "freq,T [K],temp [K]", NU, SKY, SKY)
    message = r"columns 1 \(T \[K\]\), 2 \(temp \[K\]\) could all be the temperature; choose one with columns: \{fr"
    with pytest.raises(InputError, match=message):
        read_spectrum(path)
    assert len(read_spectrum(path, {"frequency": "freq", "temperature": 2}).frequency) == 31


def test_a_run_file_leaves_the_columns_to_the_header(tmp_path):
    path = written(tmp_path / "s.csv", "T_mK,freq_MHz", SKY, NU)
    content = small_run(data={"file": str(path)})
    config = run_file.load(content)
    assert config.data["global_signal"].given_columns is None
    run_file.dump(config, tmp_path / "run.yaml")
    again = run_file.load(tmp_path / "run.yaml")
    assert again.data["global_signal"].given_columns is None
    np.testing.assert_allclose(read_data(again.data["global_signal"]).frequency, NU)
    given = run_file.load(small_run(data={"file": str(path), "columns": {"frequency": 0, "temperature": 1}}))
    with pytest.raises(InputError, match="read as the frequency, but its name is 'T_mK'"):
        read_data(given.data["global_signal"])


# ---------------------------------------------------------------- sigma


@pytest.mark.parametrize("header", ["nu,T,sigma", "nu,T [mK],err [mK]", "nu,T [K],sigma", "nu,T [mK],sigma_K"])
def test_sigma_is_read_in_its_unit(tmp_path, header):
    temperature = SKY / (1e3 if "T [K]" in header else 1.0)
    sigma = SIGMA / (1e3 if header in ("nu,T [K],sigma", "nu,T [mK],sigma_K") else 1.0)
    spectrum = read_spectrum(written(tmp_path / "s.csv", header, NU, temperature, sigma))
    np.testing.assert_allclose(spectrum.sigma, SIGMA)
    np.testing.assert_allclose(spectrum.temperature, SKY)
    spectrum.cut(65, 80).write(tmp_path / "data.csv")
    back = read_written_spectrum(tmp_path / "data.csv")
    np.testing.assert_array_equal(back.sigma, spectrum.cut(65, 80).sigma)


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_a_sigma_that_is_not_positive_is_refused(tmp_path, value):
    sigma = np.where(NU == 61.0, value, SIGMA)
    path = written(tmp_path / "s.csv", "nu,T,sigma,flag", NU, SKY, sigma, 0 * NU)
    with pytest.raises(InputError, match=r"sigma is not a positive number in data row 2 \(column 2\); corr"):
        read_spectrum(path)
    flagged = read_spectrum(written(path, "nu,T,sigma,flag", NU, SKY, sigma, NU == 61.0))
    assert len(flagged.sigma) == 30


def problem_of(path, noise, **data):
    likelihood = {} if noise is None else {"noise": noise}
    return build(run_file.load(small_run(data={"file": str(path)} | data, likelihood={"global_signal": likelihood})))


def test_the_sigma_of_the_data_is_their_noise(tmp_path):
    """By default, and as `channels` without a file; equal to the same numbers in a file of their own."""
    path = written(tmp_path / "s.csv", "nu,T,sigma", NU, 10 + 0 * NU, SIGMA)
    other = written(tmp_path / "sigma.csv", "channel,rms", np.arange(31), SIGMA)
    blocks = [None, {"model": "channels"}, {"model": "channels", "file": str(other), "column": "rms"}]
    values = [problem_of(path, block).loglikelihood(np.array([0.1, 1e4]))[0] for block in blocks]
    assert values[0] == values[1] == values[2]
    assert problem_of(path, {"sigma": 25}).loglikelihood(np.array([0.1, 1e4]))[0] != values[0]


def test_noise_of_all_channels_of_the_file_is_cut_like_the_data(tmp_path):
    """One row per fitted channel, or one per channel of the data file."""
    flag = NU == 70.0
    path = written(tmp_path / "s.csv", "nu,T,flag", NU, SKY, flag)
    spectrum = read_spectrum(path).cut(62, 80)
    assert len(spectrum.frequency) == 18
    whole = written(tmp_path / "whole.csv", "rms", SIGMA)
    fitted = SIGMA[(NU >= 62) & (NU <= 80) & ~flag]
    part = written(tmp_path / "part.csv", "rms", fitted)
    for file in (whole, part):
        np.testing.assert_allclose(Channels(file=str(file), column="rms").build(spectrum).extra, fitted**2)
    bad = written(tmp_path / "bad.csv", "rms", SIGMA[:20])
    message = r"bad.csv has 20 rows, but 18 channels of the 31 in the data file are fitted .*or one per channel of the"
    with pytest.raises(InputError, match=message):
        Channels(file=str(bad), column="rms").build(spectrum)
    with pytest.raises(InputError, match=r"whole.csv: no column 'std'; the header has rms"):
        Channels(file=str(whole), column="std").build(spectrum)


def test_missing_noise_is_one_line(tmp_path):
    path = written(tmp_path / "s.csv", "nu,T", NU, SKY)
    with pytest.raises(InputError, match=r"noise is missing, and the data have no sigma column; give for"):
        problem_of(path, None)
    with pytest.raises(InputError, match=r"noise: the data have no sigma column; name it under data"):
        problem_of(path, {"model": "channels"})
    with pytest.raises(InputError, match="column is given without a file; give file, or name the sigma column"):
        problem_of(path, {"model": "channels", "column": 1})
    with pytest.raises(InputError, match=r"noise: no file .*none.csv"):
        problem_of(path, {"model": "channels", "file": "none.csv", "column": "rms"})


# ---------------------------------------------------------------- bins


def test_bins_keep_a_power_law_and_the_meaning_of_the_noise(rng):
    """Unevenly flagged channels, so that the centre of a bin is not that of its channels."""
    nu = np.sort(rng.choice(np.arange(60.0, 90.0, 0.0061), 3000, replace=False))
    weight = rng.uniform(0.2, 3.0, len(nu))
    binned = Spectrum(nu, 1.7e6 * (nu / 75.0) ** -2.5, weight).binned(0.4)
    assert 70 < len(binned.frequency) <= 76
    np.testing.assert_allclose(binned.temperature, 1.7e6 * (binned.frequency / 75.0) ** -2.5, rtol=1e-12)
    assert binned.weight.sum() == pytest.approx(weight.sum(), rel=1e-12)
    # With another spectral index the error is 50 times smaller than that of a plain average.
    sky = 1.7e6 * (nu / 75.0) ** -2.57
    other, at = Spectrum(nu, sky, weight).binned(0.4), 1.7e6 * (binned.frequency / 75.0) ** -2.57
    number = np.floor((nu - nu.min()) / 0.4 + 1e-6).astype(int)
    plain = np.bincount(number, weight * sky) / np.bincount(number, weight)
    assert np.abs(other.temperature - at).max() < 0.02 * np.abs(plain - at).max() < 2.0
    z = []
    for _ in range(50):
        noise = 300.0 / np.sqrt(weight) * rng.standard_normal(len(nu))
        z.append(Spectrum(nu, noise, weight).binned(0.4).temperature / 300.0 * np.sqrt(binned.weight))
    assert np.std(z) == pytest.approx(1.0, abs=4 / np.sqrt(2 * np.size(z)))


def test_bins_of_channels_with_sigma(rng):
    nu = np.arange(60.0, 90.0, 0.05)
    sigma = rng.uniform(100.0, 500.0, len(nu))
    z = []
    for _ in range(50):
        binned = Spectrum(nu, sigma * rng.standard_normal(len(nu)), np.ones(len(nu)), sigma=sigma).binned(1.0)
        z.append(binned.temperature / binned.sigma)
    assert len(binned.frequency) == 30
    assert np.std(z) == pytest.approx(1.0, abs=4 / np.sqrt(2 * np.size(z)))


def test_a_bin_of_one_channel_is_the_channel(rng):
    spectrum = Spectrum(NU, rng.normal(size=31), rng.uniform(1, 2, 31), rng.normal(size=31), sigma=SIGMA)
    for width in (1.0, 0.01):
        binned = spectrum.binned(width)
        for name in ("frequency", "temperature", "weight", "truth", "sigma"):
            np.testing.assert_allclose(getattr(binned, name), getattr(spectrum, name), rtol=1e-13)
    whole = spectrum.binned(1e3)
    assert len(whole.frequency) == 1


def test_bins_in_a_run_file(tmp_path):
    nu = np.arange(60.0, 90.0, 0.05)
    path = written(tmp_path / "s.csv", "nu,T,w", nu, 10 + 0 * nu, 1 + 0 * nu)
    problem = problem_of(path, {"sigma": 100}, band=[62, 80], bin=0.5)
    spectrum = problem.data["global_signal"]
    assert len(spectrum.frequency) == 36
    np.testing.assert_allclose(spectrum.weight, 10)
    assert spectrum.kept is None
    with pytest.raises(InputError, match=r"data.bin is 0"):
        problem_of(path, {"sigma": 100}, bin=0)
