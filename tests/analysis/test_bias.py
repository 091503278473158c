"""Emulation bias: reweighting against closed forms; a biased and a perfect emulator through the whole chain."""

import json
import shutil
import time

import numpy as np
import pytest
import yaml
from helpers import small_run, tiny_run
from scipy.stats import genpareto

from lstmfit import Emulator
from lstmfit.analysis import bias as bias_module
from lstmfit.analysis.bias import bias_between, measure_bias, reweighted
from lstmfit.analysis.chains import Run, read_run
from lstmfit.analysis.divergence import linear_gaussian
from lstmfit.analysis.reweight import choose_points, effective_size, fit_generalised_pareto, k_hat_limit, pareto_smooth
from lstmfit.analysis.same_problem import compared
from lstmfit.analysis.truth import TruthCache, cache_path
from lstmfit.driver import fit, load_problem
from lstmfit.errors import InputError
from lstmfit.parameters import Parameter
from lstmfit.simulators import History

NAMES = ["a", "b", "c"]


class LinearCase:
    """Linear model, white noise, flat prior, a constant error of the emulator: everything in closed form."""

    def __init__(self, rng, strength, n=80, sigma=2.0):
        self.matrix = rng.standard_normal((n, 3))
        self.error = strength * rng.standard_normal(n)
        self.sigma = sigma
        self.data = self.matrix @ [1.0, -1.0, 0.5] + sigma * rng.standard_normal(n)
        self.covariance = sigma**2 * np.linalg.inv(self.matrix.T @ self.matrix)
        self.means = [self.covariance @ self.matrix.T @ (self.data - e) / sigma**2 for e in (0.0, self.error)]
        fisher, pull = np.linalg.inv(self.covariance), self.matrix.T @ self.error / sigma**2
        self.D_KL, self.shift = linear_gaussian(fisher, pull)
        best = [self.log_likelihood(m, e) for m, e in zip(self.means, (0.0, self.error))]
        # Same widths: the evidences differ as the best likelihoods do.
        self.dlogZ = best[0] - best[1]

    def log_likelihood(self, x, error):
        residual = self.data - x @ self.matrix.T - error
        return -0.5 * np.sum(residual**2, axis=-1) / self.sigma**2

    def measure(self, rng, n, from_truth=False):
        x = rng.multivariate_normal(self.means[0 if from_truth else 1], self.covariance, n)
        ratio = self.log_likelihood(x, 0.0) - self.log_likelihood(x, self.error)
        return reweighted(x, np.full(n, 1.0 / n), -ratio if from_truth else ratio, NAMES, from_truth=from_truth)


@pytest.mark.parametrize("from_truth", [False, True])
@pytest.mark.parametrize("strength", [0.05, 0.4])
def test_reweighting_finds_the_closed_forms_within_its_errors(rng, strength, from_truth):
    case = LinearCase(rng, strength)
    pulls = []
    for _ in range(30):
        got = case.measure(rng, 500, from_truth)
        assert got["khat"] < got["khat_limit"]
        for i, name in enumerate(NAMES):
            pulls.append((got["parameters"][name]["shift"] - case.shift[i]) / got["parameters"][name]["bias_err"])
        pulls.append((got["D_KL"] - case.D_KL) / got["D_KL_err"])
        pulls.append((got["dlogZ"] - case.dlogZ) / got["dlogZ_err"])
        assert got["D_KL_half_variance"] == pytest.approx(case.D_KL, rel=0.6)
    pulls = np.reshape(pulls, (30, 5))
    assert np.abs(pulls.mean(axis=0)).max() < 0.8
    assert 0.6 < pulls.std(axis=0).min()
    assert pulls.std(axis=0).max() < 1.5


def test_a_perfect_emulator_gives_zero(rng):
    x = rng.standard_normal((500, 3))
    got = reweighted(x, np.full(500, 1 / 500), np.zeros(500), NAMES, dict.fromkeys(NAMES, 0.0))
    assert got["khat"] < 0.5
    assert got["D_KL"] == pytest.approx(0.0, abs=1e-12)
    assert got["dlogZ"] == pytest.approx(0.0, abs=1e-9)
    assert got["ess"] == pytest.approx(500)
    for p in got["parameters"].values():
        assert p["bias"] == pytest.approx(0.0, abs=1e-12)
        assert p["true_bias"] < 0.2
    rounding = reweighted(x, np.full(500, 1 / 500), 1e-4 * rng.standard_normal(500), NAMES)
    assert rounding["khat"] < 0.5
    assert rounding["mean_bias"] < 1e-4


def test_a_posterior_elsewhere_is_not_trusted(rng):
    case = LinearCase(rng, 4.0)
    got = case.measure(rng, 500)
    assert got["khat"] is None or got["khat"] > got["khat_limit"]
    got["failures"] = {"n": 0, "first": None}
    verdict = bias_module.verdict(got)
    assert not verdict["trusted"]
    assert "direct fit" in verdict["text"]


def test_a_vanishing_likelihood_is_an_error(rng):
    with pytest.raises(InputError, match="is zero at every point"):
        reweighted(rng.standard_normal((50, 3)), np.full(50, 0.02), np.full(50, -np.inf), NAMES)


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.6])
def test_the_pareto_fit_finds_the_shape(rng, k):
    fitted = [fit_generalised_pareto(np.sort(genpareto.rvs(k, scale=2.0, size=3000, random_state=rng))) for _ in "123"]
    assert np.mean([f[0] for f in fitted]) == pytest.approx(k, abs=0.06)
    assert np.mean([f[1] for f in fitted]) == pytest.approx(2.0, rel=0.08)


def test_smoothing_keeps_the_body_and_knows_heavy_tails(rng):
    light, heavy = 0.5 * rng.standard_normal(1000), rng.standard_exponential(1000) * 1.2
    for ratios, low, high in ((light, -0.5, 0.6), (heavy, 0.8, 1.5)):
        before = ratios.copy()
        smooth, k = pareto_smooth(ratios)
        np.testing.assert_array_equal(ratios, before)
        assert low < k < high
        assert np.sum(smooth != ratios) <= 95
        assert smooth.max() <= ratios.max() + 1e-12
    assert pareto_smooth(light)[1] == pytest.approx(pareto_smooth(light + 1000.0)[1], abs=1e-6)
    assert k_hat_limit(500) == pytest.approx(0.6295, abs=1e-3)
    assert k_hat_limit(10**6) == 0.7
    assert pareto_smooth(np.arange(10.0))[1] == np.inf


def test_chosen_points_represent_the_chain_and_grow(rng):
    weights = np.exp(3.0 * rng.standard_normal(3000))
    values = np.log(weights) + rng.standard_normal(3000)
    exact = np.average(values, weights=weights)
    small, _ = choose_points(weights, 100, np.random.default_rng(0))
    large, _ = choose_points(weights, 300, np.random.default_rng(0))
    assert set(small) <= set(large)
    means, errors = [], []
    for seed in range(200):
        rows, base = choose_points(weights, 200, np.random.default_rng(seed))
        assert len(set(rows)) == 200
        assert base.sum() == pytest.approx(1.0)
        means.append(base @ values[rows])
        errors.append(np.sqrt(np.sum((base * (values[rows] - means[-1])) ** 2)))
    assert np.mean(means) == pytest.approx(exact, abs=0.1 * np.std(values))
    assert np.std(means) < 1.5 * np.mean(errors)
    rows, base = choose_points(np.ones(1000), 200, rng)
    np.testing.assert_allclose(base, 1 / 200)
    rows, base = choose_points(weights, 5000, rng)
    assert base @ values[rows] == pytest.approx(exact)
    assert effective_size(np.ones(7)) == 7.0


# ---------------------------------------------------------------- through the whole chain


def run_of(folder):
    return read_run(folder)


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    """An emulator whose signal is 3 per cent too shallow, and a fit with it."""
    folder = tmp_path_factory.mktemp("biased")
    emulator = Emulator.load("echo21")
    emulator.scaling.scale[0] *= 0.97
    emulator.scaling.offset[0] *= 0.97
    emulator.save(folder / "shallow.h5")
    return fit(small_run(emulator=str(folder / "shallow.h5")), folder / "run", jobs=2)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return fit(small_run(), tmp_path_factory.mktemp("honest") / "run", jobs=2)


def direct_run(**changes):
    """The same fit with the simulator itself."""
    run = small_run(simulator="echo21", **changes)
    del run["emulator"]
    return run


@pytest.fixture(scope="module")
def direct(tmp_path_factory):
    # Fewer calls than with the emulator, as each costs a simulation.
    sampler = {"polychord": {"nlive": 25, "num_repeats": 2, "seed": 1}}
    return fit(direct_run(sampler=sampler), tmp_path_factory.mktemp("direct") / "run", jobs=2)


def test_a_good_emulator_is_called_good(honest):
    got = measure_bias(run_of(honest), n=200)
    assert {"parameters", "D_KL", "D_KL_err", "dlogZ", "khat", "ess", "n"} <= set(got)
    assert list(got["parameters"]) == ["fX", "Tmin_vir"]
    assert got["n"] == 200
    assert got["khat"] < 0.5
    assert got["ess"] > 190
    assert got["D_KL"] < 0.005
    for p in got["parameters"].values():
        assert p["bias"] < 0.1
        assert 0.0 < p["bias_err"] < 0.02
        assert p["true_bias"] < 4.0
    assert got["verdict"]["trusted"]
    rms = got["signal_rms_mK"]
    assert 0.3 < rms["emulated_68"] / rms["true_68"] < 3.0
    assert rms["true_68"] < 10.0
    assert rms["noise"] == pytest.approx(25.0, rel=0.1)
    json.dumps(got)


def test_a_biased_emulator_is_caught_and_undone(biased, direct):
    """Both runs have the same data, so reweighting must lead from the biased posterior to the true one."""
    got = measure_bias(run_of(biased), "echo21", n=1000)
    assert max(p["bias"] for p in got["parameters"].values()) > 0.3
    assert got["D_KL"] > 0.03
    assert "good" not in got["verdict"]["text"]
    pair = bias_between(run_of(biased), run_of(direct))
    chains = pair["chains"]
    for name, p in got["parameters"].items():
        for other in (pair["parameters"][name], chains["parameters"][name]):
            assert abs(p["shift"] - other["shift"]) < 3.5 * np.hypot(p["bias_err"], other["bias_err"]) + 0.05
    assert abs(got["dlogZ"] - pair["dlogZ"]) < 4 * np.hypot(got["dlogZ_err"], pair["dlogZ_err"]) + 0.02
    assert abs(got["D_KL"] - pair["D_KL"]) < 4 * np.hypot(got["D_KL_err"], pair["D_KL_err"])
    evidence = chains["logZ_b"] - chains["logZ_a"], np.hypot(chains["logZ_a_err"], chains["logZ_b_err"])
    assert abs(got["dlogZ"] - evidence[0]) < 3.5 * evidence[1]
    json.dumps(pair)


def test_a_truth_that_is_no_direct_fit_of_the_same_problem_is_refused(honest, biased, direct, tmp_path):
    with pytest.raises(InputError, match=r"was fitted with the emulator echo21, not with the simulator; .* compare"):
        bias_between(run_of(biased), run_of(honest))
    noise = {"global_signal": {"noise": {"model": "white", "sigma": 30}}}
    prior = small_run()["params"] | {"fX": {"prior": {"dist": "loguniform", "min": 0.01, "max": 1}}}
    for name, changes, message in (
        ("noise", {"likelihood": noise}, r"differ in likelihood.global_signal.noise; use the same run file"),
        ("prior", {"params": prior}, r"differ in the prior of fX; use the same run file"),
        ("value", {"params": small_run()["params"] | {"wX": 1.0}}, r"differ in the value of wX"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(direct / "data.csv", folder)
        resolved = yaml.safe_load((direct / "run.yaml").read_text())["resolved"]
        (folder / "run.yaml").write_text(yaml.safe_dump(direct_run(**changes, resolved=resolved)))
        with pytest.raises(InputError, match=message):
            bias_between(run_of(honest), Run(folder, None, load_problem(folder)))
    assert bias_between(run_of(honest), run_of(direct))["verdict"]["trusted"]


def test_a_default_that_is_left_out_is_no_difference(honest, direct, tmp_path):
    """Of resolved run files, as versions or hands write them."""
    block = {"noise": {"model": "white", "sigma": 25}, "foreground": {"terms": 3, "reference": 75}}
    np.savetxt(tmp_path / "s.txt", np.full(451, 25.0))
    np.savetxt(tmp_path / "other.txt", np.full(451, 25.0))
    files = [{"model": "channels", "file": str(tmp_path / name)} for name in ("s.txt", "other.txt")]
    cases = [
        ({"global_signal": block},
         {"global_signal": block | {"foreground": block["foreground"] | {"marginalise": True}}}),
        ({"global_signal": {"noise": files[0]}}, {"global_signal": {"noise": files[1] | {"column": 0, "unit": "mK"}}}),
        ({"global_signal": {"noise": files[0] | {"floor": 0}}}, {"global_signal": {"noise": files[1]}}),
        ({"global_signal": block, "planck_tau": {}},
         {"global_signal": block, "planck_tau": {"measurement": "planck2018", "form": "two_piece"}}),
    ]  # fmt: skip
    found = []
    for i, pair in enumerate(cases):
        for j, likelihood in enumerate(pair):
            folder = tmp_path / f"{i}{j}"
            folder.mkdir()
            shutil.copy(direct / "data.csv", folder)
            content = yaml.safe_load((direct / "run.yaml").read_text())
            (folder / "run.yaml").write_text(yaml.safe_dump(content | {"likelihood": likelihood}))
            found.append(compared(Run(folder, None, load_problem(folder))))
        assert found[-1] == found[-2]
    assert found[0] != found[2]


def test_the_noise_is_that_of_the_data_under_a_foreground_too(tmp_path):
    mock = small_run()["data"]["mock"] | {"foreground": {"reference": 75, "coefficients": [1750.0, -120.0, 5.0]}}
    for marginalise in (True, False):
        foreground = {"terms": 3, "reference": 75, "mean": [1750.0, -120.0, 5.0], "scale": 1}
        foreground["marginalise"] = marginalise
        likelihood = {"global_signal": {"noise": {"model": "white", "sigma": 25}, "foreground": foreground}}
        folder = fit(tiny_run(data={"mock": mock}, likelihood=likelihood), tmp_path / str(marginalise), jobs=2)
        assert measure_bias(run_of(folder), n=50)["signal_rms_mK"]["noise"] == pytest.approx(25.0, rel=0.1)


@pytest.mark.parametrize("n", [25, 50, 500])
def test_nearly_equal_weights_are_trusted_and_not_smoothed(rng, n):
    """k-hat of a few weights that hardly differ is anything."""
    above = []
    for _ in range(40):
        x = rng.standard_normal((n, 3))
        ratio = 0.04 * x[:, 0] + 0.02 * rng.standard_normal(n)
        got = reweighted(x, np.full(n, 1.0 / n), ratio, NAMES)
        got["failures"] = {"n": 0, "first": None}
        assert bias_module.verdict(got)["trusted"]
        plain = np.exp(ratio) / np.exp(ratio).sum()
        np.testing.assert_allclose(got["weights"], plain, rtol=1e-12)
        above.append(got["khat"] > got["khat_limit"])
    assert n > 25 or any(above)


def test_nearly_equal_is_meant_of_the_ratios_not_of_the_chains_own_weights(rng):
    """All points of a nested chain: their weights differ, what the truth does to them hardly."""
    base = rng.exponential(size=400) ** 3
    base /= base.sum()
    x = rng.standard_normal((400, 3))
    ratio = 0.02 * rng.standard_normal(400)
    got = reweighted(x, base, ratio, NAMES)
    assert got["ess"] < 200
    assert got["efficiency"] == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(got["weights"], base * np.exp(ratio) / (base @ np.exp(ratio)), rtol=1e-12)
    got["failures"] = {"n": 0, "first": None}
    assert bias_module.verdict(got)["trusted"]


def test_too_few_points_are_told_from_a_posterior_elsewhere(rng):
    result = {"khat": 0.4, "khat_limit": k_hat_limit(25), "n": 25, "ess": 22.0, "efficiency": 0.6}
    result["failures"] = {"n": 0, "first": None}
    result["parameters"] = {"a": {"bias": 0.1, "bias_err": 0.1}}
    assert "25 points are too few to tell" in bias_module.verdict(result)["text"]
    assert "is too far from the emulated one" in bias_module.verdict(result | {"khat": 0.9})["text"]


def test_points_are_simulated_once(honest, tmp_path):
    run, folder = run_of(honest), tmp_path / "run"
    shutil.copytree(honest, folder)
    cache_path(folder, "echo21").unlink(missing_ok=True)
    copy = read_run(folder, problem=run.problem)
    calls = []
    first = measure_bias(copy, "echo21", n=50, progress=lambda done, n: calls.append(done))
    assert len(calls) == 50
    calls.clear()
    assert measure_bias(copy, "echo21", n=50, progress=lambda done, n: calls.append(done)) == first
    assert not calls
    measure_bias(copy, "echo21", n=80, progress=lambda done, n: calls.append(done))
    assert len(calls) == 30
    # A damaged cache is no reason to stop.
    cache_path(folder, "echo21").write_bytes(b"PK nonsense")
    assert measure_bias(copy, "echo21", n=50) == first


def test_bad_input(honest, biased):
    run = run_of(honest)
    with pytest.raises(InputError, match="n is 5, but at least 25"):
        measure_bias(run, "echo21", n=5)
    with pytest.raises(InputError, match="did you mean 'echo21'"):
        measure_bias(run, "eco21")
    with pytest.raises(InputError, match="no module 'nowhere'"):
        measure_bias(run, "nowhere:Thing")


class Toy:
    """A simulator that is quick, slow or broken, as a test wants it."""

    redshifts = np.linspace(6.0, 20.0, 5)
    parameters = (Parameter("x", 0.0, 1.0),)
    name, version = "toy", "1"

    def __call__(self, theta):
        if theta[0] > 0.9:
            raise RuntimeError("x is too large")
        if theta[0] > 0.8:
            return History(self.redshifts, np.full(5, np.nan), np.ones(5), 0.05)
        return History(self.redshifts, theta[0] * np.ones(5), np.ones(5), 0.05)


class Corrected(Toy):
    """Fails until its author has corrected it."""

    broken = True

    def __call__(self, theta):
        if Corrected.broken:
            raise RuntimeError("not yet")
        return super().__call__(theta)


def test_failures_are_tried_again(tmp_path, monkeypatch):
    theta = np.array([[0.1], [0.2]])
    monkeypatch.setattr(Corrected, "broken", True)
    _, messages = TruthCache(tmp_path / "c.npz", "test_bias:Corrected").simulate(theta)
    assert messages == ["RuntimeError: not yet"] * 2
    monkeypatch.setattr(Corrected, "broken", False)
    for _ in range(2):
        outputs, messages = TruthCache(tmp_path / "c.npz", "test_bias:Corrected").simulate(theta)
        assert messages == ["", ""]
        np.testing.assert_allclose(outputs[:, 0], [0.1, 0.2], rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": np.zeros((1, 11), dtype=np.float32)},
        {"outputs": np.zeros((2, 7), dtype=np.float32)},
        {"outputs": np.zeros(2, dtype=np.float32)},
        {"outputs": np.full((2, 11), np.nan, dtype=np.float32)},
        {"outputs": np.array([["a"] * 11] * 2)},
        {"theta": np.zeros((2, 3))},
        {"theta": np.zeros(())},
        {"message": np.zeros(2)},
        {"message": np.array("")},
        {"meta": "[]"},
        {"meta": "{"},
        {"theta": np.array([None, {}], dtype=object)},
    ],
)
def test_caches_of_other_shapes_are_simulated_again(tmp_path, change, caplog):
    path, theta = tmp_path / "c.npz", np.array([[0.1], [0.2]])
    TruthCache(path, "test_bias:Toy").simulate(theta)
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **content | change)
    cache = TruthCache(path, "test_bias:Toy")
    assert len(cache) == 0
    assert "simulated again" in caplog.text
    outputs, messages = cache.simulate(theta)
    assert messages == ["", ""]
    np.testing.assert_allclose(outputs[:, 0], [0.1, 0.2], rtol=1e-6)


class SlowToy(Toy):
    def __call__(self, theta):
        time.sleep(0.05)
        return Toy()(theta)


def test_failures_are_kept_with_their_reason(tmp_path):
    cache = TruthCache(tmp_path / "c.npz", "test_bias:Toy")
    theta = np.array([[0.1], [0.95], [0.85], [0.1]])
    for _ in range(2):
        outputs, messages = cache.simulate(theta)
        assert messages == ["", "RuntimeError: x is too large", "SimulationError: the result is not finite", ""]
        np.testing.assert_allclose(outputs[0, :5], 0.1, rtol=1e-6)
        np.testing.assert_array_equal(outputs[0], outputs[3])
        assert np.isnan(outputs[1:3]).all()
        cache = TruthCache(tmp_path / "c.npz", "test_bias:Toy")
        assert len(cache) == 3


def test_slow_simulators_use_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("lstmfit.analysis.truth.WORTH_IT_S", 0.2)
    theta = np.linspace(0.0, 1.0, 50)[:, None]
    outputs, messages = TruthCache(tmp_path / "c.npz", "test_bias:SlowToy").simulate(theta, jobs=2)
    assert sum(bool(m) for m in messages) == 10
    np.testing.assert_allclose(outputs[:40, 0], theta[:40, 0], rtol=1e-6)
    assert len(TruthCache(tmp_path / "c.npz", "test_bias:SlowToy")) == 50


def test_an_emulator_of_a_strangers_names_no_code_to_import(tmp_path, monkeypatch):
    """Its file says which simulator it emulates; a dotted path there would be imported and run."""
    from lstmfit.simulators import recorded_simulator

    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    emulator = Emulator.load("echo21")
    emulator.record["simulator"] = "evil:Sim"
    with pytest.raises(InputError, match=r"names the simulator evil:Sim, which is not imported"):
        recorded_simulator(emulator, "")
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("LSTMFIT_TRUST", "1")
    assert recorded_simulator(emulator, "") == "evil:Sim"
    emulator.record.pop("simulator")
    with pytest.raises(InputError, match=r"^echo21 does not say which simulator it emulates; give --truth SIMULATOR$"):
        recorded_simulator(emulator, "give --truth SIMULATOR")
