"""GSData files, written by pygsdata itself."""

import logging
from pathlib import Path

import astropy.units as un
import h5py
import numpy as np
import pytest
from astropy.time import Time
from helpers import small_run
from pygsdata import GSData, GSFlag
from pygsdata.constants import KNOWN_TELESCOPES

from lstmfit import config as run_file
from lstmfit.data import read_data
from lstmfit.datasets.gsdata import read_gsdata
from lstmfit.errors import InputError

NU = np.linspace(60.0, 90.0, 121)
SKY = 1750.0 * (NU / 75.0) ** -2.55
GAIN = np.linspace(0.9, 1.3, 6)
WIDTH = 0.25e6
SECONDS, SAMPLES = 13.0, 40.0


def gsdata(path, data, flags=None, loads=None, **options):
    """Write (n_loads, 1, n_times, n_channels) in K."""
    n = data.shape[2]
    times = Time(2458000.0 + np.arange(n)[:, None] / 24 + np.zeros(len(data)), format="jd")
    options = {"data_unit": "temperature", "nsamples": np.full(data.shape, SAMPLES)} | options
    if loads is not None:
        options["loads"] = loads
    GSData(
        telescope=KNOWN_TELESCOPES["edges-low"], data=data, freqs=options.pop("freqs", NU * un.MHz), times=times,
        flags=flags or {}, **options,
    ).write_gsh5(path)  # fmt: skip
    return path


def sky_of_times():
    return (GAIN[:, None] * SKY)[None, None]


def test_an_average_is_the_mean_sky_with_the_noise_of_the_radiometer_equation(tmp_path, rng):
    z = []
    for i in range(30):
        sigma = sky_of_times() / np.sqrt(WIDTH * SECONDS * SAMPLES)
        path = gsdata(tmp_path / f"{i}.gsh5", sky_of_times() + sigma * rng.standard_normal(sigma.shape))
        spectrum = read_gsdata(path)
        z.append((spectrum.temperature - 1000.0 * GAIN.mean() * SKY) / spectrum.sigma)
    np.testing.assert_allclose(spectrum.frequency, NU)
    np.testing.assert_array_equal(spectrum.weight, 1.0)
    assert np.std(z) == pytest.approx(1.0, abs=4 / np.sqrt(2 * np.size(z)))


def test_flags_leave_no_steps_where_the_sky_changes(tmp_path, caplog):
    """A channel that is flagged at the brightest time is not darker than its neighbours."""
    at_one_time = np.zeros((6, 121), dtype=bool)
    at_one_time[5, 40:60] = True
    flags = {
        "rfi": GSFlag(at_one_time, axes=("time", "freq")),
        "always": GSFlag(NU > 88.0, axes=("freq",)),
        "none": GSFlag(np.zeros((1, 6), dtype=bool), axes=("load", "time")),
    }
    with caplog.at_level(logging.INFO, "lstmfit"):
        spectrum = read_gsdata(gsdata(tmp_path / "d.gsh5", sky_of_times(), flags))
    np.testing.assert_array_equal(spectrum.frequency, NU[NU <= 88.0])
    np.testing.assert_array_equal(spectrum.kept.number, np.flatnonzero(NU <= 88.0))
    # A plain average would be 5 per cent, 90 K, lower there.
    np.testing.assert_allclose(spectrum.temperature, 1000.0 * GAIN.mean() * SKY[NU <= 88.0], rtol=1e-9)
    assert (spectrum.sigma[40:60] > 1.02 * np.interp(NU[40:60], NU[[39, 60]], spectrum.sigma[[39, 60]])).all()
    assert "6 times are averaged; 8 of 121 channels are flagged" in caplog.text


@pytest.mark.parametrize("seconds", [7.0 * un.s, np.full((1, 1, 6), 7.0) * un.s])
def test_the_integration_time_of_the_file(tmp_path, seconds):
    path = gsdata(tmp_path / "d.gsh5", sky_of_times(), effective_integration_time=seconds)
    found = read_gsdata(path, time=2)
    np.testing.assert_allclose(found.sigma, 1000.0 * GAIN[2] * SKY / np.sqrt(WIDTH * 7.0 * SAMPLES))


def test_a_load_times_and_local_sidereal_times_are_chosen(tmp_path):
    data = np.concatenate([sky_of_times(), np.full((1, 1, 6, 121), 300.0)])
    path = gsdata(tmp_path / "d.gsh5", data, loads=("ant", "ambient"))
    np.testing.assert_allclose(read_gsdata(path, load="ambient").temperature, 3e5)
    np.testing.assert_allclose(read_gsdata(path, time=3).temperature, 1000.0 * GAIN[3] * SKY)
    mean = 1000.0 * GAIN[1:4].mean() * SKY
    np.testing.assert_allclose(read_gsdata(path, time=(1, 3)).temperature, mean, rtol=1e-9)
    with h5py.File(path) as file:
        hours = file["metadata/lsts"][:, 0]
    around = (hours[1] - 0.1) % 24, (hours[3] + 0.1) % 24
    np.testing.assert_allclose(read_gsdata(path, lst=around).temperature, mean, rtol=1e-9)
    for options, message in [
        ({"load": "sky"}, r"no load 'sky'; .*ant"),
        ({"time": 6}, r"time is 6, but the file has times 0 to 5; give a number or \[first, last\]"),
        ({"time": (3, 1)}, r"time is \(3, 1\), but the file has times 0 to 5"),
        ({"lst": ((hours[5] + 1) % 24, (hours[5] + 1.1) % 24)}, "no time has a local sidereal time of"),
    ]:
        with pytest.raises(InputError, match=message):
            read_gsdata(path, **options)


def test_units_of_frequency(tmp_path):
    path = gsdata(tmp_path / "d.gsh5", sky_of_times())
    with h5py.File(path, "a") as file:
        file["metadata/freqs"][:] = NU * 1e6
        file["metadata/freqs"].attrs["unit"] = "Hz"
    np.testing.assert_allclose(read_gsdata(path).frequency, NU)


def test_a_run_file_reads_it(tmp_path):
    path = gsdata(tmp_path / "d.gsh5", sky_of_times())
    data = {"file": path.name, "load": "ant", "time": [0, 2], "bin": 1.0}
    content = small_run(data=data, likelihood={"global_signal": {}})
    (tmp_path / "run.yaml").write_text(run_file.dump_yaml(content))
    data = run_file.load(tmp_path / "run.yaml").data["global_signal"]
    spectrum = read_data(data)
    assert len(spectrum.frequency) == 31
    channels = read_gsdata(path, time=(0, 2))
    halved = 0.5 * np.interp(spectrum.frequency, channels.frequency, channels.sigma)
    np.testing.assert_allclose(spectrum.sigma[:-1], halved[:-1], rtol=1e-2)
    table = tmp_path / "t.csv"
    table.write_text("50,1\n51,2\n")
    for more, message in [
        ({"file": str(table), "load": "ant"}, r"load selects from a GSData file, but .*t.csv is a table; remove it"),
        ({"file": str(path), "unit": "K"}, "is a GSData file; remove columns and unit"),
        ({"file": str(path), "lst": [3, 25]}, r"data.lst"),
        ({"file": str(path), "time": -1}, r"data.time"),
    ]:
        with pytest.raises(InputError, match=message):
            read_data(run_file.load(small_run(data=more)).data["global_signal"])


def test_other_and_damaged_files_are_one_line(tmp_path):
    path = tmp_path / "d.h5"

    def refused(message, **changes):
        with pytest.raises(InputError, match=message) as found:
            read_gsdata(path)
        assert "\n" not in str(found.value)
        assert len(str(found.value)) < 400

    with h5py.File(path, "w") as file:
        file["signal"] = np.arange(3.0)
    refused("is HDF5, but not a GSData file: it lacks the groups data and metadata")
    for change, message in [
        (lambda file: file.attrs.__setitem__("version", "3.0"), "has version 3.0 of GSData"),
        (lambda file: file["metadata"].attrs.__setitem__("data_unit", "power"), "contains power, but temperatures are"),
        (lambda file: file["metadata/freqs"].attrs.__setitem__("unit", "rad"), "frequencies are in rad; expected Hz"),
        (lambda file: file["metadata/freqs"].__setitem__(0, -1.0), "at least two distinct positive numbers"),
        (lambda file: file.__delitem__("data/nsamples"), "dataset data/nsamples is missing"),
        (lambda file: file["data/nsamples"].__setitem__(..., 0.0), "every channel of the selected times is flagged"),
        (lambda file: file["data/data"].__setitem__((0, 0, 0, slice(5, None)), np.nan), "1 of the selected times have"),
        (lambda file: file["data/flags/rfi/data/axes"].__delitem__("data0"), "the flags rfi have axes none and shape"),
    ]:
        path.unlink()
        gsdata(path, sky_of_times(), {"rfi": GSFlag(NU > 85, axes=("freq",))})
        with h5py.File(path, "a") as file:
            change(file)
        refused(message)
    path.unlink()
    gsdata(path, np.concatenate([sky_of_times()] * 2, axis=1), pols=("xx", "yy"))
    refused("has 2 polarisations; write a file for each")
    path.write_bytes(Path(path).read_bytes()[:3000])
    refused("is not a complete GSData file .*copy it again")
