"""The emulator, the priors and the likelihood in JAX; BlackJAX's nested slice sampler behind the run file."""

import json
import subprocess
import sys

import anesthetic
import numpy as np
import pytest
from helpers import THETA, small_run
from networks import PARAMETERS, draw_theta, random_network

from lstmfit import Emulator
from lstmfit import config as run_file
from lstmfit.analysis.chains import read_run
from lstmfit.analysis.compare import align, compare
from lstmfit.analysis.foreign_chains import read_chain
from lstmfit.analysis.report import write_report
from lstmfit.driver import fit, load_problem
from lstmfit.errors import InputError
from lstmfit.problem import build

jax = pytest.importorskip("jax", reason="pip install blackjax jax")
pytest.importorskip("blackjax", reason="pip install blackjax jax")

from lstmfit.emulator.jax_engine import JaxEngine  # noqa: E402
from lstmfit.priors.jax_prior import make_transform  # noqa: E402
from lstmfit.sampling import checkpointed_run  # noqa: E402
from lstmfit.sampling.blackjax import BlackjaxSettings, make_target, run_blackjax  # noqa: E402

SMALL = {"blackjax": {"n_live": 60, "num_delete": 10, "num_inner_steps": 4, "seed": 1}}

# ---------------------------------------------------------------- the parts in JAX


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"units": 16, "steps": 45, "encoder": (), "histories": ("signal",), "scalars": ()},
        {"units": 33, "steps": 4, "layers": 3, "encoder": (5, 40)},
        {"units": 24, "steps": 3, "layers": 1, "encoder": (9, 20), "blocks": 2},
        {"layers": 0, "steps": 1, "blocks": 3},
    ],
)
def test_any_network_agrees_with_the_float64_reference(rng, sizes):
    architecture, scaling, weights = random_network(rng, **sizes)
    arguments = (architecture, scaling, weights, np.linspace(5, 49, 45), PARAMETERS)
    theta = draw_theta(rng, 37)
    before = theta.copy()
    expected = Emulator(*arguments, engine="numpy").raw_batch(theta)
    engine = JaxEngine(architecture, scaling, weights)
    tolerance = 2e-5 * np.abs(expected).max()
    np.testing.assert_allclose(engine.batch(theta), expected, atol=tolerance, rtol=0)
    np.testing.assert_allclose(engine.single(theta[5]), expected[5], atol=tolerance, rtol=0)
    np.testing.assert_array_equal(theta, before)
    assert np.isnan(engine.single(np.array([-1.0, 0.0, 1.0]))).all()


def test_the_shipped_emulator_agrees_within_the_bar(rng):
    reference, emulator = (Emulator.load("echo21", engine=engine) for engine in ("numpy", "jax"))
    assert emulator.engine == "jax"
    theta = np.stack([build_prior(reference, rng) for _ in range(200)])
    rms = np.sqrt(np.mean((emulator(theta) - reference(theta)) ** 2, axis=1))
    assert rms.max() < 5e-3
    histories = emulator.histories(theta[0])
    assert histories["tau"] == pytest.approx(reference.histories(theta[0])["tau"], rel=1e-5)
    np.testing.assert_allclose(emulator.jacobian(theta[0]), reference.jacobian(theta[0]))


def build_prior(emulator, rng):
    low, high = np.array([(p.min, p.max) for p in emulator.parameters]).T
    log = np.array([p.log for p in emulator.parameters])
    u = rng.uniform(size=len(low))
    return np.where(log, low * (high / low) ** u, low + u * (high - low))


PRIORS = {
    "fX": {"dist": "loguniform", "min": 1e-3, "max": 1e2},
    "fLy": {"dist": "lognorm", "s": 0.5, "scale": 1.0},
    "fesc": {"dist": "truncnorm", "loc": 0.1, "scale": 0.2, "min": 0.001, "max": 1.0},
    "sLy": {"dist": "truncnorm", "loc": 0.0, "scale": 0.5, "min": 0.5, "max": 4.0},
    "wX": {"dist": "norm", "loc": 1.5, "scale": 0.1},
    "tstar": {"min": 0.1, "max": 10.0},
}
WHITE = {"noise": {"model": "white", "sigma": 25}}
FOREGROUND = {"model": "log_polynomial", "terms": 4}


def problem_of(**changes):
    return build(run_file.load(small_run(extrapolate=True) | changes))


def likelihoods():
    yield "white", WHITE
    yield "free sigma", {"noise": {"sigma": "free"}}
    yield "emulator error", WHITE | {"emulator_error": True}
    yield "free sigma, emulator error", {"noise": {"sigma": "free"}, "emulator_error": True}
    yield "marginalised", WHITE | {"foreground": FOREGROUND}
    yield "marginalised, free sigma", {"noise": {"sigma": "free"}, "foreground": FOREGROUND}
    yield "marginalised, emulator error", WHITE | {"foreground": FOREGROUND, "emulator_error": True}
    yield "sampled", WHITE | {"foreground": FOREGROUND | {"marginalise": False}}
    yield "student_t", {"noise": {"model": "student_t", "sigma": "free", "dof": "free"}}
    yield "student_t, dof", {"noise": {"model": "student_t", "sigma": 20, "dof": 4.0}, "emulator_error": "diagonal"}


@pytest.mark.parametrize(("name", "block"), list(likelihoods()), ids=lambda x: x if isinstance(x, str) else "")
def test_the_target_is_the_problems_likelihood(rng, name, block):
    params = {key: value for key, value in THETA.items() if key not in ("fX", "Tmin_vir")}
    if name == "sampled":
        params |= {f"a{i}": {"prior": {"min": -1.0, "max": 1.0}} for i in range(4)}
    if name == "student_t":
        params |= {"dof": {"prior": {"min": 1.0, "max": 9.0}}}
    problem = problem_of(likelihood={"global_signal": block}, params=params, data=band_data())
    cubes = rng.uniform(0.05, 0.95, size=(20, len(problem.names)))
    expected = [problem.loglikelihood(problem.prior_transform(cube))[0] for cube in cubes]
    with jax.enable_x64(True):
        target = jax.jit(jax.vmap(make_target(problem)))
        np.testing.assert_allclose(target(cubes), expected, rtol=1e-6, atol=2e-3)
        outside = np.where(np.arange(cubes.shape[1]) == 1, 1.01, cubes)
        assert np.isneginf(target(outside)).all()


def band_data():
    """Part of the channels, so that the emulator's error and the weights meet another grid than their own."""
    return small_run()["data"] | {"band": [60, 110]}


def test_priors_are_those_of_the_run(rng):
    params = {name: {"prior": spec} for name, spec in PRIORS.items()} | {"Tmin_vir": 1e4}
    problem = problem_of(params=params)
    cubes = rng.uniform(size=(50, len(problem.names)))
    expected = np.array([problem.prior_transform(cube) for cube in cubes])
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.vmap(make_transform(problem.prior))(cubes), expected, rtol=1e-9)


def test_sorted_parameters_are_sorted(rng):
    prior = {"prior": {"min": 0.5, "max": 2.5, "sorted": "pair"}}
    problem = problem_of(params={"sLy": prior, "wX": prior} | {n: THETA[n] for n in ("fesc", "tstar", "fLy")})
    cubes = rng.uniform(size=(50, len(problem.names)))
    expected = np.array([problem.prior_transform(cube) for cube in cubes])
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.vmap(make_transform(problem.prior))(cubes), expected, rtol=1e-9)


# ---------------------------------------------------------------- what has no form in JAX


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"likelihood": {"global_signal": WHITE, "planck_tau": {}}}, "only supports .* global_signal, not planck_tau"),
        ({"params": {"fX": {"value": "10**x"}, "x": {"prior": {"min": -1, "max": 1}}}}, r"computed from others \(fX\)"),
        ({"params": {"fX": {"prior": {"dist": "beta", "a": 2, "b": 3}}}}, "sample fX with a prior 'beta'; use uniform"),
        (
            {
                "likelihood": {"global_signal": WHITE | {"systematics": {"model": "sinusoid"}}},
                "params": {"A_sin": 1.0, "A_cos": 0.0, "period": 12.0, "damping": 0.0},
            },
            r"sample A_sin, .*, whose foreground or systematics is not linear",
        ),
        ({"emulator": None, "simulator": "echo21"}, r"needs an emulator, but the signal is echo21"),
    ],
)
def test_what_has_no_form_in_jax_is_one_line_that_names_the_others(tmp_path, changes, message):
    run = {key: value for key, value in (small_run(sampler=SMALL) | changes).items() if value is not None}
    with pytest.raises(InputError, match=f"blackjax .*{message}.* another sampler: polychord, nautilus"):
        fit(run | {"extrapolate": True}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_live": 100, "num_delete": 60}, "num_delete is 60, more than half of n_live 100"),
        ({"n_live": 4, "num_delete": 1}, "n_live is 4, but 2 parameters need at least 6"),
        ({"num_inner_steps": 0}, "sampler.blackjax.num_inner_steps: 0 is out of bounds"),
        ({"precision_criterion": 2}, "sampler.blackjax.precision_criterion is 2; input should be less than 1"),
        ({"num_repeats": 5}, "unknown key sampler.blackjax.num_repeats"),
    ],
)
def test_mistakes_in_the_sampler_block_are_one_line(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        fit(small_run(sampler={"blackjax": settings}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("module", "message"), [("blackjax", "BlackJAX is not installed"), ("jax", "JAX is not inst")])
def test_a_missing_package_is_one_line(tmp_path, monkeypatch, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf'{message}.* to fix this: pip install "lstmfit\[blackjax\]"'):
        fit(small_run(sampler=SMALL), tmp_path / "run")


def test_a_fit_by_another_sampler_loads_neither_jax_nor_nautilus():
    code = "import sys, lstmfit.driver, lstmfit.sampling.samplers, lstmfit.doctor; lstmfit.doctor.examine(); "
    code += "print(sorted({'jax', 'blackjax', 'nautilus', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- the sampler


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fit(small_run(sampler=SMALL), tmp_path_factory.mktemp("blackjax") / "run")


def test_the_folder_is_that_of_polychord(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "run.yaml", "data.csv", "summary.json", "corner.png", "signal.png", "chain.paramnames", "chain.state.json",
        "chain.txt", "chain_equal_weights.txt", "chain_dead-birth.txt", "chain_phys_live-birth.txt",
        "chain_getdist.txt", "chain_getdist.paramnames", "chain_getdist.ranges",
    }  # fmt: skip
    samples = anesthetic.read_chains(str(finished / "chain"))
    assert isinstance(samples, anesthetic.NestedSamples)
    # Ten at a time: the number of live points falls by nine before the next ten are born.
    assert samples.nlive.max() == 60
    assert np.sum(~np.isfinite(samples.logL_birth)) == 60
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["sampler"].startswith("BlackJAX 1.")
    assert summary["prior_fraction"] == 1.0
    assert 0.001 < summary["insertion_p"] < 1
    for p in summary["parameters"].values():
        assert abs(p["mean"] - p["truth"]) < 4 * p["std"]


def test_the_chain_holds_the_problems_likelihood(finished):
    run = read_run(finished)
    rows = run.samples.iloc[::40]
    theta = rows[list(run.problem.names)].to_numpy()
    values, derived = run.problem.loglikelihood_batch(theta, return_derived=True)
    np.testing.assert_allclose(rows["logL"], values, rtol=1e-6, atol=2e-3)
    np.testing.assert_allclose(rows["loglike_global_signal"], derived[:, 0])


@pytest.mark.slow
def test_it_agrees_with_polychord(finished, tmp_path):
    other = fit(small_run(sampler={"polychord": {"nlive": 100, "num_repeats": 6, "seed": 1}}), tmp_path / "run", jobs=1)
    chains = align(read_chain(finished), read_chain(other))
    figures = compare(chains[0].samples, chains[1].samples, chains[2])
    error = np.hypot(figures["logZ_a_err"], figures["logZ_b_err"])
    assert abs(figures["logZ_a"] - figures["logZ_b"]) < 3 * error
    assert min(p["ks_p"] for p in figures["parameters"].values()) > 1e-3


def test_the_report_cites_it(finished):
    text = write_report(read_run(finished)).read_text()
    (finished / "report.html").unlink()
    assert "Yallup" in text
    assert "Insertion-index test of the sampling: p = 0." in text


@pytest.mark.slow
@pytest.mark.ci
def test_interrupted_and_resumed_it_ends_as_if_it_had_not_been(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpointed_run, "PROGRESS_S", 0.0)
    monkeypatch.setattr(checkpointed_run, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(checkpointed_run, "CHECKPOINT_SHARE", 1.0)
    problem, settings = load_problem(finished), BlackjaxSettings(**SMALL["blackjax"])

    def interrupt(progress):
        if progress.n_dead == 200 and not interrupt.done:
            interrupt.done = True
            raise KeyboardInterrupt

    interrupt.done = False
    options = {"resume": True, "progress": interrupt}
    with pytest.raises(KeyboardInterrupt):
        run_blackjax(problem, tmp_path, "chain", settings, **options)
    assert (tmp_path / "chain.blackjax.npz").is_file()
    with pytest.raises(InputError, match=r"started with num_inner_steps 4 \(now 7\)"):
        run_blackjax(problem, tmp_path, "chain", settings.model_copy(update={"num_inner_steps": 7}), resume=True)
    result = run_blackjax(problem, tmp_path, "chain", settings, **options)
    a, b = (np.loadtxt(folder / "chain_dead-birth.txt") for folder in (finished, tmp_path))
    np.testing.assert_array_equal(a, b)
    assert result.n_like == json.loads((finished / "summary.json").read_text())["n_like"]
    assert run_blackjax(problem, tmp_path, "chain", settings, resume=True) == result
    (tmp_path / "chain_dead-birth.txt").unlink()
    (tmp_path / "chain.blackjax.npz").write_text("rubbish")
    with pytest.raises(InputError, match=r"blackjax.npz cannot be read .* --force"):
        run_blackjax(problem, tmp_path, "chain", settings, resume=True)


@pytest.mark.mpi
def test_mpirun_is_refused(tmp_path):
    import yaml

    (tmp_path / "run.yaml").write_text(yaml.safe_dump(small_run(sampler=SMALL)))
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", sys.executable, "-m", "lstmfit", "fit"]
    done = subprocess.run(
        [*command, "run.yaml", "-o", "out"], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.count("there are 2 MPI ranks; start it without mpirun") == 1
