"""The engines agree with one another, with Keras, and leave their input alone."""

import dataclasses
import os
import platform
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest
from networks import draw_theta, random_network

from lstmfit.emulator.emulator import Emulator, shipped
from lstmfit.emulator.emulator import test_set_path as path_of_test_set
from lstmfit.emulator.numba_engine import NumbaEngine
from lstmfit.emulator.numpy_engine import forward

LAYOUTS = [
    {},
    {"units": 16, "steps": 45, "encoder": (), "histories": ("signal",), "scalars": ()},
    {"units": 33, "steps": 4, "layers": 3, "encoder": (5, 40)},
    {"units": 8, "steps": 1, "layers": 1, "encoder": (70,), "scalars": ()},
    {"units": 24, "steps": 3, "layers": 1, "encoder": (9, 20), "blocks": 2},
    {"steps": 1, "layers": 0, "encoder": (40,), "blocks": 3},
    {"steps": 1, "layers": 0, "encoder": (5, 33), "scalars": ()},
]


def reference(network, theta):
    architecture, scaling, weights = network
    histories, scalars = forward(architecture, weights, scaling.inputs(theta))
    histories = histories * scaling.scale[:, None] + scaling.offset
    scalars = scalars * scaling.scalar_scale + scaling.scalar_offset
    return np.concatenate([histories.reshape(len(theta), -1), scalars], axis=1)


@pytest.mark.parametrize("sizes", LAYOUTS)
def test_numba_agrees_with_the_float64_reference(rng, sizes):
    network = random_network(rng, **sizes)
    theta = draw_theta(rng, 103)
    expected = reference(network, theta)
    engine = NumbaEngine(*network)
    single = np.array([engine.single(t).copy() for t in theta])
    tolerance = 2e-5 * np.abs(expected).max()
    np.testing.assert_allclose(single, expected, atol=tolerance, rtol=0)
    np.testing.assert_allclose(engine.batch(theta), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("sizes", LAYOUTS)
def test_matrices_in_half_precision(rng, sizes):
    """The same as the reference with rounded matrices; signals of any size lose no more than others."""
    architecture, scaling, weights = random_network(rng, **sizes)
    scaling = dataclasses.replace(scaling, scale=scaling.scale * 1e-7)
    rounded = {k: a if "bias" in k else a.astype(np.float16).astype(float) for k, a in weights.items()}
    theta = draw_theta(rng, 103)
    expected = reference((architecture, scaling, rounded), theta)
    engine = NumbaEngine(architecture, scaling, weights, half=True)
    assert engine.name == "numba"
    for name, array in engine.weights.items():
        np.testing.assert_array_equal(array, rounded[name])
    n = len(architecture.histories) * architecture.n_channels
    for part in (slice(0, n), slice(n, None)):
        if expected[:, part].size:
            tolerance = 2e-5 * np.abs(expected[:, part]).max()
            np.testing.assert_allclose(engine.batch(theta)[:, part], expected[:, part], atol=tolerance, rtol=0)
            single = np.array([engine.single(t).copy() for t in theta])
            np.testing.assert_allclose(single[:, part], expected[:, part], atol=tolerance, rtol=0)


def test_matrices_beyond_half_precision_stay_in_float32(rng):
    architecture, scaling, weights = random_network(rng)
    weights["output_kernel"] = weights["output_kernel"] * 1e6
    engine = NumbaEngine(architecture, scaling, weights, half=True)
    assert engine.name == "numba32"
    theta = draw_theta(rng, 5)
    np.testing.assert_array_equal(engine.batch(theta), NumbaEngine(architecture, scaling, weights).batch(theta))


def test_half_precision_does_not_change_the_error_of_the_shipped_emulators():
    for name in shipped():
        with h5py.File(path_of_test_set(shipped()[name])) as file:
            theta, signal = file["par_test"][:1000], file["signal_test"][:1000].astype(float)
        errors = []
        for engine in ("numba", "numba32"):
            residual = Emulator.load(name, engine=engine)(theta, outside="allow") - signal
            errors.append(np.sqrt(np.mean(residual**2, axis=1)))
        assert np.mean(errors[0]) < 1.01 * np.mean(errors[1])
        assert errors[0].max() < 1.02 * errors[1].max()


OLDER = "+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt,+sse4.2,+sse4.1,+ssse3,+sse3,+sse2,+mmx,+fxsr,+cx16,+movbe"
FORCED = """
import numpy as np
from lstmfit import Emulator
from lstmfit.doctor import examine

theta = np.array([[0.1, 1.0, 0.05, 1e4, 0.5, 2.64, 1.5], [0.5, 0.3, 0.2, 3e4, 0.9, 1.5, 1.0]] * 7)
emulator, reference = Emulator.load("echo21"), Emulator.load("echo21", engine="numpy")
difference = [emulator(theta) - reference(theta), [emulator(t) - reference(t) for t in theta]]
print(emulator.engine, np.sqrt(np.mean(np.square(difference))), dict(row[:2] for row in examine())["emulator weights"])
"""


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions of x86-64")
@pytest.mark.parametrize(
    ("features", "engine", "rms", "said"),
    [
        (f"{OLDER},+f16c", "numba", 5e-3, "half precision; AVX2"),
        (OLDER, "numba32", 1e-4, "float32, because this processor has no F16C: calls are slower; AVX2"),
    ],
)
def test_older_processors(features, engine, rms, said):
    """Compiled as for a processor without AVX-512, or without F16C."""
    environment = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", FORCED], capture_output=True, text=True, timeout=300, env=environment
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    name, measured, weights = done.stdout.strip().split(" ", 2)
    assert (name, weights) == (engine, said)
    assert float(measured) < rms


def test_keras_network_agrees_with_the_reference(rng):
    from lstmfit.emulator.network import build, read_weights

    for sizes in (LAYOUTS[0], {"units": 6, "steps": 45, "encoder": ()}, *LAYOUTS[4:]):
        architecture, scaling, weights = random_network(rng, **sizes)
        model = build(architecture, 0, weights)
        x = scaling.inputs(draw_theta(rng, 11))
        histories, scalars = (array.numpy() for array in model(x.astype(np.float32)))
        expected_histories, expected_scalars = forward(architecture, weights, x)
        np.testing.assert_allclose(
            histories[:, :, : architecture.n_channels][:, :, ::-1], expected_histories, atol=2e-5
        )
        np.testing.assert_allclose(scalars, expected_scalars, atol=2e-5)
        assert all(np.array_equal(v, weights[k]) for k, v in read_weights(model).items())


def test_looped_and_unrolled_keras_recurrences_agree(rng, monkeypatch):
    from lstmfit.emulator import network

    architecture, _, weights = random_network(rng)
    x = rng.uniform(-1, 1, (5, 3)).astype(np.float32)
    unrolled = network.build(architecture, 0, weights)(x)
    monkeypatch.setattr(network, "UNROLLED_STEPS", 1)
    looped = network.build(architecture, 0, weights)(x)
    for a, b in zip(unrolled, looped):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


def test_shipped_emulator_in_numba_agrees_with_keras_network():
    from lstmfit.emulator.network import build

    emulator = Emulator.load("echo21")
    rng = np.random.default_rng(5)
    u = rng.uniform(size=(1000, 7))
    low, high = np.array([(p.min, p.max) for p in emulator.parameters]).T
    log = np.array([p.log for p in emulator.parameters])
    theta = np.where(log, low * (high / low) ** u, low + u * (high - low))
    model = build(emulator.architecture, 0, emulator.weights)
    histories, _ = model(emulator.scaling.inputs(theta).astype(np.float32))
    n = emulator.architecture.n_channels
    keras_signal = histories.numpy()[:, 0, :n][:, ::-1] * emulator.scaling.scale[0] + emulator.scaling.offset[0]
    single = np.array([emulator(t) for t in theta[:200]])
    np.testing.assert_allclose(single, emulator(theta[:200]), atol=1e-3)
    assert np.sqrt(np.mean((emulator(theta) - keras_signal) ** 2)) < 5e-3
    exact = Emulator.load("echo21", engine="numpy")(theta)
    assert np.sqrt(np.mean((emulator(theta) - exact) ** 2)) < 5e-3


def test_nan_and_impossible_parameters_give_nan(rng):
    engine = NumbaEngine(*random_network(rng))
    theta = draw_theta(rng, 6)
    theta[1, 1], theta[4, 0] = np.nan, -1.0
    out = engine.batch(theta)
    assert np.isnan(out[[1, 4]]).all()
    assert np.isfinite(out[[0, 2, 3, 5]]).all()
    assert np.isnan(engine.single(theta[1])).all()
    assert np.isfinite(engine.single(theta[0])).all()


def test_input_is_not_changed(rng):
    architecture, scaling, weights = random_network(rng)
    emulator = Emulator(architecture, scaling, weights, np.linspace(5, 50, 45), _parameters())
    theta = draw_theta(rng, 5)
    before = theta.copy()
    emulator(theta)
    emulator(theta[0])
    emulator.histories(theta)
    np.testing.assert_array_equal(theta, before)


def test_a_call_returns_an_array_of_its_own(rng):
    architecture, scaling, weights = random_network(rng)
    emulator = Emulator(architecture, scaling, weights, np.linspace(5, 50, 45), _parameters())
    theta = draw_theta(rng, 2)
    first = emulator(theta[0])
    kept = first.copy()
    emulator(theta[1])
    np.testing.assert_array_equal(first, kept)


def test_threads_do_not_disturb_one_another(rng):
    engine = NumbaEngine(*random_network(rng))
    theta = draw_theta(rng, 50)
    expected = np.array([engine.single(t).copy() for t in theta])
    wrong = []

    def work(offset):
        for _ in range(20):
            for i in range(offset, 50, 2):
                if not np.array_equal(engine.single(theta[i]).copy(), expected[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _parameters():
    from networks import PARAMETERS

    return PARAMETERS


@pytest.mark.parametrize("sizes", [LAYOUTS[0], *LAYOUTS[4:6]])
def test_derivatives_agree_with_finite_differences_and_between_engines(rng, sizes):
    network = random_network(rng, **sizes)
    z = np.linspace(5, 50, 45)
    exact = Emulator(*network, z, _parameters(), engine="numpy")
    theta = draw_theta(rng, 3)
    jacobian = exact.jacobian(theta)
    assert jacobian.shape == (3, 45, 3)
    for i in range(3):
        step = 1e-5 * theta[0, i]
        up, down = theta[0].copy(), theta[0].copy()
        up[i] += step
        down[i] -= step
        finite = (exact(up) - exact(down)) / (2 * step)
        np.testing.assert_allclose(jacobian[0, :, i], finite, atol=1e-5 * np.abs(finite).max() + 1e-9)
    np.testing.assert_array_equal(Emulator(*network, z, _parameters()).jacobian(theta[0]), jacobian[0])
    xla = Emulator(*network, z, _parameters(), engine="xla")
    assert xla.engine == "xla"
    np.testing.assert_allclose(xla.jacobian(theta[:1]), jacobian[:1], atol=1e-4 * np.abs(jacobian).max())
    np.testing.assert_allclose(xla(theta), exact(theta), atol=1e-3)
    np.testing.assert_allclose(xla(theta[1]), exact(theta[1]), atol=1e-3)
    np.testing.assert_allclose(xla.histories(theta)["tau"], exact.histories(theta)["tau"], atol=1e-4)
