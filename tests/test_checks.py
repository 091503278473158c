"""What is said before a run: bounds and the exact linear answer."""

import numpy as np
import pytest
from helpers import small_run

from lstmfit import Emulator
from lstmfit import config as run_file
from lstmfit.analysis.divergence import linear_gaussian
from lstmfit.analysis.forecast import forecast, jacobians, noise_metric
from lstmfit.checks import check_run
from lstmfit.emulator.emulator import shipped_test_set
from lstmfit.problem import build


def problem_of(**changes):
    return build(run_file.load(small_run(**changes)))


def noise(**block):
    return {"global_signal": block}


@pytest.fixture(scope="module")
def errors():
    test = shipped_test_set("echo21")
    return Emulator.load("echo21")(test.theta) - test.signal


def test_the_metric_is_that_of_the_noise(rng, errors):
    problem = problem_of()
    product = noise_metric(problem, np.array([0.1, 1e4]))
    a, b = errors[:2]
    assert product(a, b) == pytest.approx(a @ b / 25.0**2, rel=1e-4, abs=1e-9)
    assert product(a, a) == pytest.approx(a @ a / 25.0**2, rel=1e-4)


def test_the_metric_sees_an_emulator_error_and_a_marginalised_foreground(errors):
    theta = np.array([0.1, 1e4])
    plain, a = noise_metric(problem_of(), theta), errors[0]
    emulator = Emulator.load("echo21")
    with_error = noise_metric(problem_of(likelihood=noise(noise={"sigma": 25}, emulator_error=True)), theta)
    covariance = 625.0 * np.eye(451) + emulator.errors["covariance"]
    assert with_error(a, a) == pytest.approx(a @ np.linalg.solve(covariance, a), rel=1e-3)
    block = {"model": "log_polynomial", "terms": 5}
    foreground = noise_metric(problem_of(likelihood=noise(noise={"sigma": 25}, foreground=block)), theta)
    problem = problem_of(likelihood=noise(noise={"sigma": 25}, foreground=block))
    smooth = 0.01 * problem.spectra["global_signal"].marginalised.basis[:, 0]
    assert plain(smooth, smooth) > 1.0
    assert foreground(smooth, smooth) < 1e-4 * plain(smooth, smooth)
    assert foreground(a, a) < plain(a, a)


def test_jacobians_are_the_emulators(errors):
    emulator, test = Emulator.load("echo21"), shipped_test_set("echo21")
    theta = test.theta[:3]
    before = theta.copy()
    got = jacobians(emulator, theta, ("fX", "sLy"))
    np.testing.assert_array_equal(theta, before)
    for i, index, step in ((0, 0, None), (1, 5, 0.01)):
        up, down = theta.copy(), theta.copy()
        if step is None:
            up[:, index] *= 10**0.01
            down[:, index] /= 10**0.01
        else:
            up[:, index] += step
            down[:, index] -= step
        rough = (emulator(up) - emulator(down)) / 0.02
        np.testing.assert_allclose(got[:, i], rough, atol=0.02 * np.abs(got[:, i]).max() + 0.02)


def test_the_forecast_is_the_linear_form_at_test_signals(errors):
    problem, test = problem_of(), shipped_test_set("echo21")
    report = forecast(problem, test, 25.0)
    rms = np.sqrt(np.mean(errors**2, axis=1))
    assert report["D_KL_bound_mean"] == pytest.approx(451 / 2 * (rms.mean() / 25) ** 2, rel=1e-6)
    assert report["D_KL_bound_p95"] == pytest.approx(451 / 2 * (np.percentile(rms, 95) / 25) ** 2, rel=1e-6)
    assert 0 < report["D_KL_linear_mean"] < report["D_KL_linear_p95"] < report["D_KL_bound_p95"]
    assert set(report["shifts"]) == {"fX", "Tmin_vir"}
    assert report["good_down_to_mK"] == pytest.approx(25.0 * report["shift_p95"] / 0.1)
    # The noise halved: D_KL four times, shift twice, where the noise is so low that the prior hardly matters.
    whole, half = (forecast(problem_of(likelihood=noise(noise={"sigma": s})), test, s) for s in (2.0, 1.0))
    assert half["D_KL_linear_mean"] == pytest.approx(4 * whole["D_KL_linear_mean"], rel=0.05)
    assert half["shift_mean"] == pytest.approx(2 * whole["shift_mean"], rel=0.05)
    one = jacobians(problem.signal.emulator, test.theta[:1], ("fX", "Tmin_vir"))[0] / 25.0
    d_kl, _ = linear_gaussian(one @ one.T, one @ errors[0] / 25.0)
    assert 0 <= d_kl <= 0.5 * errors[0] @ errors[0] / 625.0


def test_check_says_what_the_emulator_is_good_for(tmp_path):
    report = check_run(small_run(), n_draws=50)
    assert report["verdict"].startswith("accurate enough for this noise")
    quiet = small_run(
        data={"mock": small_run()["data"]["mock"] | {"noise": 0.2}}, likelihood=noise(noise={"sigma": 0.2})
    )
    assert "noticeable at this noise" in check_run(quiet, n_draws=50)["verdict"]


def test_check_of_correlated_noise_and_of_an_emulator_error(tmp_path):
    lag = np.abs(np.subtract.outer(np.arange(451), np.arange(451)))
    np.savetxt(tmp_path / "c.txt", 625.0 * 0.9**lag)
    correlated = {"model": "covariance", "file": str(tmp_path / "c.txt"), "unit": "mK"}
    report = check_run(small_run(likelihood=noise(noise=correlated)), n_draws=50)
    assert report["good_down_to_mK"] is None
    assert 0 < report["D_KL_linear_mean"] < report["D_KL_bound_mean"] < report["D_KL_bound_p95"]
    tolerant = check_run(small_run(likelihood=noise(noise={"sigma": 25}, emulator_error=True)), n_draws=50)
    assert tolerant["good_down_to_mK"] is None
    assert tolerant["D_KL_bound_mean"] > 0


def test_check_of_a_direct_fit_has_nothing_to_say_about_emulators():
    run = small_run(simulator="echo21")
    del run["emulator"]
    assert "verdict" not in check_run(run, n_draws=10)
