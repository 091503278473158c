"""Composition: parameters shared, fixed, computed; likelihoods added; data made, cut and read."""

import warnings

import numpy as np
import pytest

from lstmfit import driver
from lstmfit.config import load
from lstmfit.data import simulate_truth
from lstmfit.errors import InputError
from lstmfit.likelihoods import make_likelihood
from lstmfit.problem import build
from lstmfit.signal_functions import FlattenedGaussianSignal, make_signal

THETA = {"fX": 0.1, "fLy": 1.0, "fesc": 0.05, "Tmin_vir": 1e4, "tstar": 0.5, "sLy": 2.64, "wX": 1.5}


def run(noise=None, more=None, mock=None, **top):
    return {
        "emulator": "echo21",
        "data": {"mock": {"theta": THETA, "from": "emulator", "noise": 25, "seed": 2} | (mock or {})},
        "likelihood": {"global_signal": {"noise": noise or {"sigma": 25}}} | (more or {}),
    } | top


def make(*args, **kwargs):
    return build(load(run(*args, **kwargs)))


def test_parts_add_up_and_are_derived_columns(rng):
    more = {"planck_tau": {}, "x_HI": {}, "uvlf_bouwens2021": {"error_factor": 2}}
    problem = make(more=more)
    assert problem.derived_names == tuple(f"loglike_{n}" for n in ("global_signal", *more))
    assert len(problem.latex) == len(problem.names) + 4
    for theta in problem.prior.sample(5, rng):
        total, parts = problem.loglikelihood(theta)
        assert total == pytest.approx(sum(parts), rel=1e-12)
        outputs = problem.signal.emulator.histories(theta)
        expected = [
            problem.spectra["global_signal"](outputs["signal"], np.empty(0)),
            make_likelihood("planck_tau", problem.signal.redshifts, {})(outputs["tau"], np.empty(0)),
            make_likelihood("x_HI", problem.signal.redshifts, {})(outputs["x_HI"], np.empty(0)),
            problem.likelihoods["uvlf_bouwens2021"](theta[[4]]),
        ]
        assert parts == pytest.approx(expected, rel=1e-6)


def test_the_simulator_gives_the_same_outputs(rng):
    top = run(more={"planck_tau": {}, "x_HI": {}})
    top["simulator"] = top.pop("emulator")
    direct = build(load(top))
    emulated = make(more={"planck_tau": {}, "x_HI": {}})
    theta = np.array([THETA[n] for n in direct.names])
    assert direct.names == emulated.names
    assert direct.loglikelihood(theta)[1][1:] == pytest.approx(emulated.loglikelihood(theta)[1][1:], abs=0.05)
    assert emulated.loglikelihood_of(direct.signal.outputs(theta), theta) == pytest.approx(
        direct.loglikelihood(theta)[0], abs=3.0
    )


def test_fixed_computed_and_derived_parameters(rng):
    params = {
        "fX": {"value": "10**x"},
        "x": {"prior": {"min": -2, "max": 1}, "latex": "x"},
        "sLy": 2.0,
        "ratio": {"derived": "fX / fLy"},
    }
    problem = make(params=params)
    assert problem.names == ("fLy", "fesc", "Tmin_vir", "tstar", "wX", "x")
    assert problem.space.n_slow == 6
    assert problem.derived_names == ("loglike_global_signal", "fX", "ratio")
    theta = problem.prior.sample(1, rng)[0]
    full = problem.signal_parameters(theta).copy()
    np.testing.assert_allclose(full, [10 ** theta[5], *theta[:4], 2.0, theta[4]])
    total, derived = problem.loglikelihood(theta)
    assert derived[1:] == pytest.approx((10 ** theta[5], 10 ** theta[5] / theta[0]))
    assert total == problem.spectra["global_signal"](problem.signal(full), np.empty(0))


def test_parameters_that_leave_the_signal_alone_come_last_and_cost_no_call_of_it(rng):
    """Also where one of a likelihood stands before a helper from which the signal is computed."""
    params = {"fX": {"value": "10**x"}, "x": {"prior": {"min": -2, "max": 1}}}
    problem = make(params=params, noise={"model": "white", "sigma": "free"})
    assert problem.names == ("fLy", "fesc", "Tmin_vir", "tstar", "sLy", "wX", "x", "sigma")
    assert problem.space.n_slow == 7
    calls, outputs = [], problem.signal.outputs
    problem.signal.outputs = lambda theta: calls.append(1) or outputs(theta)
    first, second = problem.prior.sample(2, rng)
    louder = first.copy()
    louder[-1] *= 1.5
    values = [problem.loglikelihood(theta) for theta in (first, louder, second, first)]
    assert len(calls) == 3
    assert values[0] == values[3]
    for theta, value in zip((first, louder, second), values):
        full = problem.signal_parameters(theta)
        assert value[0] == problem.loglikelihood_of(outputs(full), theta)


def test_a_computed_parameter_beyond_the_training_range_has_no_likelihood():
    params = {"fX": {"value": "10**x"}, "x": {"prior": {"min": -9, "max": 9}}}
    problem = make(params=params)
    theta = problem.prior.transform(np.full(7, 0.5))
    theta[-1] = 8.0
    assert problem.loglikelihood(theta)[0] == -np.inf
    theta[-1] = 0.0
    assert np.isfinite(problem.loglikelihood(theta)[0])


def test_sorted_parameters_come_back_sorted():
    params = {n: {"prior": {"min": 1.0, "max": 2.0, "sorted": "pair"}} for n in ("sLy", "wX")}
    problem = make(params=params)
    draws = problem.prior.sample(200, np.random.default_rng(1))
    assert (draws[:, problem.names.index("sLy")] <= draws[:, problem.names.index("wX")]).all()
    again = load({**run(), "params": problem.space.blocks()})
    assert build(again).prior.distributions == problem.prior.distributions


def test_parameter_sets():
    problem = make(priors="echo21", params={"fX": {"prior": {"dist": "loguniform", "min": 0.01, "max": 1}}})
    assert problem.prior.distributions["fX"].max == 1.0
    assert problem.prior.distributions["sLy"].max == 4.0
    for name, distribution in make().prior.distributions.items():
        assert make(priors="echo21").prior.distributions[name] == distribution
    with pytest.raises(InputError, match="the prior of fX spans 1e-06"):
        make(priors="21cmgem")


def test_double_power_law_brings_its_parameters_by_a_set(rng):
    uvlf = {"uvlf_bouwens2021": {"efficiency": "double_power_law"}}
    with pytest.raises(InputError, match="f_star is sampled and needs a prior"):
        make(more=uvlf)
    problem = make(more=uvlf, priors="ares")
    assert problem.names[-4:] == ("f_star", "M_p", "gamma_lo", "gamma_hi")
    assert np.isfinite(problem.loglikelihood(problem.prior.sample(1, rng)[0])[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": {"fx": {"prior": {"min": 0, "max": 1}}}}, "unknown parameter 'fx'.*did you mean 'fX'"),
        ({"params": {"unused": 3.0}}, "unknown parameter 'unused'"),
        ({"params": {"fX": {"derived": "2*fLy"}}}, "fX is an input of the model, .* give its expression as value"),
        ({"params": {"fX": {"value": "2*fLy"}, "fLy": {"value": "fX/2"}}}, "computed from each other"),
        ({"params": {"fX": {"value": "2*what"}}}, "computed from 'what', which is not a parameter"),
        ({"params": {"y": {"derived": "2*what"}}}, "unknown name 'what'"),
        ({"params": {"sLy": {"prior": {"min": 0, "max": 9}}}}, "trained on 0.5..4"),
        ({"params": {"sLy": 9.0}}, "trained on 0.5..4"),
        ({"params": {"sLy": {"prior": {"min": 1, "max": 2, "sorted": "p"}}}}, "two or more parameters with the"),
        ({"noise": {"model": "student_t", "sigma": 25, "dof": "free"}}, "dof is sampled and needs a prior"),
        ({"priors": "ars"}, "did you mean 'ares'"),
        ({"mock": {"theta": {"fX": 1}}}, "theta: missing"),
        ({"mock": {"theta": THETA | {"Tmin_vir": 4}}}, r"Tmin_vir is 4, but the emulator was trained on 316"),
        ({"more": {"planck_tau": {"mock": 3}}}, "give true"),
        ({"more": {"lstmfit.likelihoods.nothing.X": {}}}, "no module"),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(InputError, match=message) as error:
        make(**changes)
    assert "\n" not in str(error.value)


def test_an_extrapolated_mock_is_made_where_it_is_asked_for():
    theta = THETA | {"fX": 200.0}
    with pytest.raises(InputError, match=r"change the value, use from: simulator, or set extrapolate: true"):
        make(mock={"theta": theta})
    with pytest.warns(UserWarning, match=r"the mock's fX 200 is outside its prior 0.001..100"):
        make(mock={"theta": theta}, extrapolate=True)
    with pytest.warns(UserWarning, match=r"the mock's fX 200 is outside its prior 0.001..100"):
        make(mock={"theta": theta, "from": "simulator"})


def test_a_truth_that_the_fit_cannot_find_is_warned_of():
    with pytest.warns(UserWarning, match=r"the mock's fX 0.1 is outside its prior 1..10"):
        make(params={"fX": {"prior": {"dist": "loguniform", "min": 1, "max": 10}}})
    with pytest.warns(UserWarning, match=r"the mock's fX is 0.1, but it is fixed at 0.3"):
        make(params={"fX": 0.3})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(params={"fX": 0.1})


def test_two_parts_may_not_bring_one_name(monkeypatch):
    from lstmfit.likelihoods.planck_tau import PlanckTau

    monkeypatch.setattr(PlanckTau, "names", ("sigma",))
    monkeypatch.setattr(PlanckTau, "params", {"sigma": {}}, raising=False)
    with pytest.raises(InputError, match="'sigma' is defined by both global_signal and planck_tau"):
        make(noise={"sigma": "free"}, more={"planck_tau": {}})


@pytest.mark.parametrize(("name", "output"), [("x_HI", "x_HI"), ("planck_tau", "tau")])
def test_a_phenomenological_signal_has_no_history(name, output):
    top = run(more={name: {}}, signal="flattened_gaussian")
    del top["emulator"]
    top["data"]["mock"]["theta"] = {"A": 500.0, "nu_0": 78.0, "w": 19.0, "tau": 7.0}
    with pytest.raises(InputError, match=f"needs {output}, which flattened_gaussian does not give"):
        build(load(top))


def test_mocks_of_all_data_from_one_truth_and_resolved():
    more = {"planck_tau": {"mock": True}, "x_HI": {"mock": {"seed": 1}}, "uvlf_bouwens2015": {"mock": True}}
    config = load(run(more=more, mock={"from": "simulator"}))
    problem = build(config)
    from lstmfit.simulators import load as load_simulator

    truth = load_simulator("echo21")(THETA)
    assert problem.options["planck_tau"] == {"mean": truth.tau}
    assert problem.likelihoods["planck_tau"].up == 0.0073
    assert problem.options["x_HI"]["points"][0]["value"] == pytest.approx(np.interp(5.58, truth.redshifts, truth.x_HI))
    uvlf = problem.likelihoods["uvlf_bouwens2015"]
    np.testing.assert_allclose(uvlf.phi, uvlf.predict(np.array([0.5])), rtol=1e-12)
    # The resolved run needs the simulator no more and is the same.
    resolved = driver.resolve(config, problem)
    again = build(resolved, problem.data)
    theta = np.array(list(THETA.values()))
    assert again.loglikelihood(theta)[0] == problem.loglikelihood(theta)[0]
    assert driver.resolve(resolved, again).likelihood == resolved.likelihood


def test_a_mock_with_foreground_radiometer_noise_and_a_band():
    foreground = {"reference": 75, "coefficients": [1750.0, -120.0]}
    noise = {"model": "radiometer", "channel_width": 0.4, "integration_time": 100}
    top = run(mock={"foreground": foreground, "noise": noise})
    top["data"]["band"] = [60, 100]
    top["likelihood"]["global_signal"] |= {
        "noise": noise | {"floor": "free"},
        "foreground": {"terms": 2, "reference": 75, "marginalise": False},
    }
    problem = build(load(top))
    spectrum, likelihood = problem.data["global_signal"], problem.spectra["global_signal"]
    nu = spectrum.frequency
    assert nu.min() >= 60
    assert nu.max() <= 100
    assert problem.truth["a0"] == 1750.0
    assert problem.names[-3:] == ("floor", "a0", "a1")
    theta = np.array([*THETA.values(), 1e-3, 1750.0, -120.0])
    signal = problem.signal(problem.signal_parameters(theta))
    residual = spectrum.temperature - likelihood.model(signal, problem.values(theta, "global_signal"))
    sigma = spectrum.temperature / np.sqrt(0.4e6 * 3.6e5)
    assert np.mean((residual / sigma) ** 2) == pytest.approx(1.0, abs=0.5)
    best = problem.loglikelihood(theta)[0]
    theta[-2] += 1.0
    assert problem.loglikelihood(theta)[0] < best
    top["data"]["band"] = [1, 2]
    with pytest.raises(InputError, match=r"no channels in the band \[1, 2\] MHz"):
        build(load(top))


def test_marginalised_is_refused_where_it_is_not_linear():
    top = run()
    top["likelihood"]["global_signal"]["foreground"] = {"model": "hills", "marginalise": True}
    with pytest.raises(InputError, match="cannot be marginalised"):
        build(load(top))


def test_public_data_that_have_not_been_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("LSTMFIT_DATA", str(tmp_path))
    top = run()
    top["data"] = {"public": "edges2018"}
    with pytest.raises(InputError, match="to fix this: lstmfit data fetch edges2018"):
        build(load(top))
    top["data"] = {"public": "edges2019"}
    with pytest.raises(InputError, match="did you mean 'edges2018'"):
        build(load(top))


def test_a_mock_says_what_to_do_where_no_simulator_is_known():
    config = load(run(mock={"from": "simulator"}))
    signal = make_signal(config)
    signal.emulator.record.pop("simulator")
    remedy = "set data.mock.from: emulator"
    with pytest.raises(InputError, match=f"^echo21 does not say which simulator it emulates; {remedy}$"):
        simulate_truth(config, signal)
    formula = FlattenedGaussianSignal(np.linspace(50.0, 100.0, 20))
    with pytest.raises(InputError, match=f"but flattened_gaussian is an analytic formula; {remedy}$"):
        simulate_truth(config, formula)
