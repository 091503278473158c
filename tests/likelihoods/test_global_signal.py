"""The likelihood of a spectrum as one among others: built from options, able to mock itself, used more than once."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import yaml
from helpers import small_run

from lstmfit import config as run_file
from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.spectrum import Spectrum
from lstmfit.errors import InputError
from lstmfit.likelihoods import GlobalSignal, make_likelihood
from lstmfit.likelihoods.interpolation import interpolation_matrix
from lstmfit.likelihoods.noise import NOISE, Noise, NoiseBlock
from lstmfit.problem import build

Z = np.linspace(12.0, 26.0, 29)
FREQUENCY = np.linspace(54.0, 105.0, 18)
WEIGHT = np.linspace(0.5, 2.0, 18)
SIGNAL = -100.0 * np.exp(-0.5 * ((Z - 17.0) / 2.0) ** 2)
FOREGROUND = {"terms": 3, "reference": 75, "mean": [1700.0, 0.0, 0.0], "scale": [300.0, 20.0, 10.0]}


def likelihood(**options):
    spectrum = Spectrum(FREQUENCY, 1e6 * (FREQUENCY / 75.0) ** -2.5, WEIGHT)
    return make_likelihood("global_signal", Z, {"noise": {"sigma": 25}} | options, spectrum)


def test_it_is_found_by_name_and_built_from_its_options():
    made = likelihood(noise={"sigma": "free"}, foreground=FOREGROUND | {"marginalise": False})
    assert isinstance(made, GlobalSignal)
    assert made.names == ("sigma", "a0", "a1", "a2")
    assert made.outputs == ("signal",)
    with pytest.raises(InputError, match=r"^likelihood.global_signal: noise is missing, and the data have"):
        make_likelihood("global_signal", Z, {}, made.spectrum)
    with pytest.raises(InputError, match=r"emulator_error is true, but the signal has no test-set errors; retrain"):
        likelihood(emulator_error=True)


def test_it_gives_model_sky_residuals_and_chi_square_in_its_own_channels():
    made = likelihood(
        noise={"sigma": "free"}, foreground=FOREGROUND, systematics={"model": "sinusoid", "reference": 75}
    )
    values = np.array([30.0, 40.0, -20.0, 12.5, -1.0])
    matrix = interpolation_matrix(Z, FREQUENCY)
    np.testing.assert_array_equal(made.on_channels(SIGNAL), matrix @ SIGNAL)
    np.testing.assert_allclose(made.on_channels(np.array([SIGNAL, 2 * SIGNAL]))[1], 2 * matrix @ SIGNAL, rtol=1e-12)
    fine = np.linspace(12.0, 26.0, 281)
    on_fine = -100.0 * np.exp(-0.5 * ((fine - 17.0) / 2.0) ** 2)
    np.testing.assert_allclose(made.on_channels(on_fine, fine), made.on_channels(SIGNAL), atol=0.05)
    sky = made.sky(SIGNAL, values)
    np.testing.assert_allclose(sky - made.on_channels(SIGNAL), made.foreground(SIGNAL, values), atol=1e-9)
    np.testing.assert_array_equal(made.residuals(SIGNAL, values), made.spectrum.temperature - sky)
    z = made.residuals(SIGNAL, values) * np.sqrt(WEIGHT) / 30.0
    assert made.chi_square(SIGNAL, values) == pytest.approx(z @ z, rel=1e-12)


def test_a_mock_of_itself_draws_the_coefficients_then_the_noise():
    """The order is part of what a seed means."""
    made = likelihood(noise={"sigma": "free"}, foreground=FOREGROUND)
    mock = made.mocked([SIGNAL, np.array([7.0])], np.random.default_rng(4))
    rng = np.random.default_rng(4)
    basis = made.marginalised.basis
    sky = made.on_channels(SIGNAL) + basis @ (FOREGROUND["mean"] + np.multiply(FOREGROUND["scale"], rng.normal(size=3)))
    np.testing.assert_array_equal(mock.temperature, sky + 7.0 / np.sqrt(WEIGHT) * rng.standard_normal(18))
    np.testing.assert_array_equal(mock.truth, made.on_channels(SIGNAL))
    quiet = made.mocked([SIGNAL, np.array([7.0])], None)
    np.testing.assert_allclose(quiet.temperature, mock.truth + basis @ FOREGROUND["mean"], rtol=1e-14)
    assert made.spectrum.truth is None


@pytest.mark.parametrize(
    ("noise", "weight", "expected"),
    [
        ({"sigma": 25}, 4.0, 12.5),
        ({"sigma": "free"}, 4.0, None),
        ({"model": "student_t", "sigma": 25, "dof": 3}, 1.0, None),
        ({"model": "radiometer", "channel_width": 1, "integration_time": 1, "floor": 3}, 1.0, None),
        ({"sigma": 25}, WEIGHT, None),
    ],
)
def test_white_noise_is_known_where_it_is_one_number(noise, weight, expected):
    spectrum = Spectrum(FREQUENCY, 1e6 * np.ones(18), weight * np.ones(18))
    assert make_likelihood("global_signal", Z, {"noise": noise}, spectrum).white_sigma == expected


class Pink(NoiseBlock):
    """A toy: noise that grows towards low frequencies."""

    model: Literal["pink"] = "pink"
    slope: float

    def build(self, spectrum):
        return Noise(0.0, (spectrum.frequency / 75.0) ** (2.0 * self.slope), "floor")


def test_a_new_noise_model_is_one_class_and_its_entry(monkeypatch, tmp_path):
    monkeypatch.setitem(NOISE, "pink", Pink)
    block = {"model": "pink", "slope": -2.0}
    mock = small_run()["data"]["mock"] | {"from": "emulator", "noise": block}
    config = run_file.load(small_run(data={"mock": mock}, likelihood={"global_signal": {"noise": block}}))
    problem = build(config)
    spectrum = problem.data["global_signal"]
    z = (spectrum.temperature - spectrum.truth) / (spectrum.frequency / 75.0) ** -2.0
    assert z.std() == pytest.approx(1.0, abs=0.15)
    run_file.dump(config, tmp_path / "run.yaml")
    assert run_file.load(tmp_path / "run.yaml") == config
    with pytest.raises(InputError, match=r"unknown key data.mock.noise.slop; did you mean 'slope'\?"):
        run_file.load(small_run(data={"mock": mock | {"noise": {"model": "pink", "slop": 1}}}))


def test_run_files_of_version_0_1_wrote_mean_and_scale_for_every_foreground(recwarn):
    block = {"model": "hills", "reference": 75.0, "mean": 0.0, "scale": 10000.0}
    run = small_run(likelihood={"global_signal": {"noise": {"sigma": 25.0}, "foreground": block}})
    read = run_file.load(yaml.safe_load(yaml.safe_dump(run))).likelihood["global_signal"].foreground
    assert read.model_dump(exclude_none=True) == {"model": "hills", "reference": 75.0}
    assert not recwarn
    run["likelihood"]["global_signal"]["foreground"] = block | {"scale": 30.0}
    with pytest.warns(UserWarning, match="hills ignores mean and scale; give priors under params"):
        run_file.load(run)


def test_noise_files_are_looked_for_beside_the_run_file(tmp_path):
    block = {"model": "channels", "file": "sigma.txt"}
    run = small_run(data={"mock": small_run()["data"]["mock"] | {"noise": block}})
    run["likelihood"] = {"global_signal": {"noise": block}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    config = run_file.load(tmp_path / "run.yaml")
    for noise in (config.data["global_signal"].mock.noise, config.likelihood["global_signal"].noise):
        assert Path(noise.file) == tmp_path / "sigma.txt"


def test_a_reference_is_the_middle_of_the_band():
    nu = redshift_to_frequency(Z)
    block = run_file.load(
        small_run(likelihood={"global_signal": {"noise": {"sigma": 25}, "foreground": {"terms": 4}}})
    ).likelihood["global_signal"].foreground
    resolved = block.resolved(nu)
    assert resolved.reference == 0.5 * (nu.min() + nu.max())
    assert (resolved.terms, resolved.mean, resolved.marginalise) == (4, [0.0] * 4, True)
