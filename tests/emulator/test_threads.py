"""Problems and emulators in several threads, in forked and spawned processes, pickled and copied."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from networks import PARAMETERS, draw_theta, random_network

from lstmfit import Emulator
from lstmfit.config import load
from lstmfit.problem import build

THETA = {"fX": 0.1, "fLy": 1.0, "fesc": 0.05, "Tmin_vir": 1e4, "tstar": 0.5, "sLy": 2.64, "wX": 1.5}
MOCK = {"theta": THETA, "from": "emulator", "noise": 25, "seed": 2}
SKY = {"model": "log_polynomial", "reference": 80, "coefficients": [1750, 10, -5]}
RUNS = {
    "all free": {
        "data": {"mock": MOCK | {"foreground": SKY}},
        "likelihood": {
            "global_signal": {"noise": {"sigma": "free"}, "foreground": {"terms": 3}},
            "planck_tau": {},
            "x_HI": {},
        },
        "params": {"fX": {"value": "10**x"}, "x": {"prior": {"min": -3, "max": 2}}, "ratio": {"derived": "fX / fLy"}},
    },
    "only slow": {"data": {"mock": MOCK}, "likelihood": {"global_signal": {"noise": {"sigma": 25}}}},
    "nonlinear": {
        "data": {"mock": MOCK},
        "likelihood": {"global_signal": {"noise": {"sigma": "free"}, "foreground": {"model": "hills"}}},
    },
    "formula": {
        "emulator": None,
        "signal": "flattened_gaussian",
        "data": {"mock": {"theta": {"A": 500, "nu_0": 78, "w": 20, "tau": 7}, "noise": 25, "seed": 2}},
        "likelihood": {"global_signal": {"noise": {"model": "student_t", "sigma": "free", "dof": 4}}},
    },
}


def make(name):
    run = {"emulator": "echo21"} | RUNS[name]
    return build(load({key: value for key, value in run.items() if value is not None}))


@pytest.mark.parametrize("name", RUNS)
def test_threads_get_the_values_of_one_thread(name, rng):
    problem = make(name)
    theta = problem.prior.sample(400, rng)
    # Neighbours share their slow parameters, so that the kept signal is used and lost again and again.
    theta[1::2, : problem.space.n_slow] = theta[::2, : problem.space.n_slow]
    expected = [problem.loglikelihood(t) for t in theta]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(problem.loglikelihood, np.concatenate([theta] * 5)))
    finally:
        sys.setswitchinterval(before)
    assert found == expected * 5


@pytest.mark.parametrize("name", RUNS)
def test_a_problem_is_pickled_and_copied(name, rng):
    problem = make(name)
    theta = problem.prior.sample(3, rng)
    expected = [problem.loglikelihood(t) for t in theta]
    for other in (pickle.loads(pickle.dumps(problem)), copy.deepcopy(problem)):
        assert [other.loglikelihood(t) for t in theta] == expected
        np.testing.assert_array_equal(other.loglikelihood_batch(theta), problem.loglikelihood_batch(theta))
        np.testing.assert_array_equal(other.prior_transform(np.full(len(theta[0]), 0.3)),
                                      problem.prior_transform(np.full(len(theta[0]), 0.3)))  # fmt: skip


def test_a_problem_with_luminosity_functions_and_the_simulator_is_pickled(rng):
    run = {"simulator": "echo21"} | RUNS["only slow"]
    run["likelihood"] = run["likelihood"] | {"uvlf_bouwens2021": {}}
    problem = build(load(run))
    theta = problem.prior.sample(1, rng)[0]
    assert pickle.loads(pickle.dumps(problem)).loglikelihood(theta) == problem.loglikelihood(theta)


@pytest.mark.parametrize("engine", ["numba", "numpy", "xla", "jax"])
def test_an_emulator_is_pickled_and_copied(engine, rng):
    pytest.importorskip({"xla": "tensorflow", "jax": "jax"}.get(engine, "numpy"))
    emulator = Emulator(*random_network(rng), np.linspace(5, 50, 45), PARAMETERS, engine=engine)
    theta = draw_theta(rng, 3)
    for other in (pickle.loads(pickle.dumps(emulator)), copy.deepcopy(emulator)):
        np.testing.assert_array_equal(other(theta), emulator(theta))
        assert other.engine == engine
        assert not other.redshifts.flags.writeable


@pytest.fixture
def emulator(rng):
    emulator = Emulator(*random_network(rng), np.linspace(5, 50, 45), PARAMETERS)
    emulator._engine.threads = 2
    return emulator


FORK = """
import multiprocessing, os, signal, sys
import numpy as np
from lstmfit import Emulator
from lstmfit.config import load
from lstmfit.problem import build

emulator = Emulator.load("echo21")
emulator._engine.threads = 2
low, high = np.array([(p.min, p.max) for p in emulator.parameters]).T
theta = low + (high - low) * np.random.default_rng(1).uniform(size=(300, len(low)))
expected = emulator.raw_batch(theta)
problem = build(load("mock_25mK_foreground"))
problem.signal.emulator._engine.threads = 2
points = problem.prior.sample(300, np.random.default_rng(2))
values = problem.loglikelihood_batch(points)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if np.array_equal(emulator.raw_batch(theta), expected) else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the forked child died"
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map_async(emulator.raw_batch, [theta] * 4).get(timeout=120):
            np.testing.assert_array_equal(found, expected)
        for found in pool.map_async(problem.loglikelihood_batch, [points] * 4).get(timeout=120):
            np.testing.assert_array_equal(found, values)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_processes_forked_after_a_batch_make_batches():
    # In a process of its own: JAX, which other tests import, does not survive a fork.
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_spawned_workers_make_batches(emulator, rng):
    theta = draw_theta(rng, 100)
    expected = emulator.raw_batch(theta)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for found in pool.map_async(emulator.raw_batch, [theta] * 4).get(timeout=120):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_get_a_problem(method, rng):
    problem = make("all free")
    theta = problem.prior.sample(50, rng)
    expected = problem.loglikelihood_batch(theta)
    with multiprocessing.get_context(method).Pool(2) as pool:
        for found in pool.map_async(problem.loglikelihood_batch, [theta] * 4).get(timeout=120):
            np.testing.assert_array_equal(found, expected)


def test_batches_from_several_threads(emulator, rng):
    thetas = [draw_theta(rng, n) for n in (1, 7, 8, 9, 40, 333)] * 10
    expected = [emulator.raw_batch(theta) for theta in thetas]
    with ThreadPoolExecutor(6) as pool:
        for found, wanted in zip(pool.map(emulator.raw_batch, thetas), expected):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 100])
@pytest.mark.parametrize("threads", [1, 2, 3, 50])
def test_a_batch_does_not_depend_on_the_threads(emulator, rng, n, threads):
    theta = draw_theta(rng, n)
    emulator._engine.threads = 1
    expected = emulator.raw_batch(theta)
    emulator._engine.threads = threads
    np.testing.assert_array_equal(emulator.raw_batch(theta), expected)
