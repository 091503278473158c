"""Speed of engines, training and a BlackJAX fit on a GPU, next to the CPU, in a single run."""

import contextlib
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from lstmfit import config as run_file
from lstmfit.benchmark import draw_theta, time_call
from lstmfit.emulator.emulator import Emulator
from lstmfit.errors import InputError
from lstmfit.problem import build
from lstmfit.sampling.state import ROOT

BATCHES = (1024, 16384)
"""Sizes of the batches that are timed."""


def run_gpu_bench(source: str = "echo21", *, device: str = "gpu", **sizes) -> dict:
    """Time the engines, the training and a BlackJAX fit on a GPU, and the same on the CPU.

    Parameters
    ----------
    source : str
        Name of a shipped emulator, or a file of ``lstmfit train``.
    device : {"gpu", "cpu"}
        Where TensorFlow and JAX run; ``cpu`` is for the tests, which run everything but the kernels of a GPU.
    **sizes
        Sizes of the measurements, see `measure`.

    Returns
    -------
    dict
        ``devices`` (names of the device of TensorFlow and of JAX, or None, and of the CPU); ``engines``: for ``numba``,
        ``xla`` and ``jax``, ``single_ms`` and ``batched_us``, microseconds per signal by size of the batch;
        ``training``: updates per second on ``gpu`` and ``cpu``; ``fit``: for ``gpu`` and ``cpu``, the wall time
        ``wall_s`` of BlackJAX including compilation, ``n_like``, ``logZ`` and ``logZ_err``. What a framework without
        a GPU would measure is None.

    Raises
    ------
    InputError
        Neither TensorFlow nor JAX finds a GPU, or the emulator is not a network of this package.
    """
    emulator = Emulator.load(source)
    if not isinstance(emulator, Emulator):
        raise InputError(
            f"bench --gpu needs a network of lstmfit, but {source} is {emulator.network}; omit --gpu to time it"
        )
    tf_device, tf_found = _find_tensorflow(device)
    jax_device, jax_found = _find_jax(device)
    if tf_device is None and jax_device is None:
        raise InputError(
            f"bench --gpu found no GPU: {tf_found}; {jax_found}; install their GPU versions on a machine with one, or "
            "omit --gpu to time the CPU"
        )
    return measure(emulator, tf_device, jax_device, **sizes)


def _find_tensorflow(device):
    """Name of TensorFlow's first device of a kind, or None; and what was found, for a message."""
    from lstmfit.emulator.network import import_keras

    try:
        tf, _ = import_keras()
    except InputError:
        return None, "TensorFlow cannot be imported"
    found = tf.config.list_physical_devices(device.upper())
    if not found:
        return None, f"TensorFlow {tf.__version__} sees none"
    if device == "gpu":
        # Otherwise TensorFlow takes all memory, and JAX finds none.
        tf.config.experimental.set_memory_growth(found[0], True)
    return (device, tf.config.experimental.get_device_details(found[0]).get("device_name", _processor())), ""


def _find_jax(device):
    """JAX's first device of a kind, or None; and what was found, for a message."""
    from lstmfit.emulator.jax_engine import import_jax

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        jax = import_jax()
    except InputError:
        return None, "JAX cannot be imported"
    try:
        return jax.devices(device)[0], ""
    except RuntimeError:
        return None, f"JAX {jax.__version__} sees none"


def _processor() -> str:
    """Name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure(
    emulator: Emulator,
    tf_device,
    jax_device,
    *,
    batches=BATCHES,
    seconds: float = 2.0,
    updates: int = 400,
    run="mock_25mK",
    settings: dict | None = None,
) -> dict:
    """Measure on the devices that were found; see `run_gpu_bench`.

    Parameters
    ----------
    emulator : Emulator
        The emulator.
    tf_device : (str, str) or None
        Kind and name of TensorFlow's device.
    jax_device : jax.Device or None
        JAX's device.
    batches : sequence of int
        Sizes of the batches.
    seconds : float
        Duration of each measurement of an engine.
    updates : int
        Gradient steps of the training; the first 20 contain the compilation and are not timed.
    run : str or mapping
        Run file of the fit; its sampler is replaced.
    settings : dict, optional
        Settings of BlackJAX.
    """
    fits = {"gpu": None, "cpu": None}
    if jax_device is not None:
        # Before anything is measured: the mock needs ECHO21, and the fit BlackJAX.
        problem, sampler = _prepare_fit(run, settings or {})
        cpu = _jax().devices("cpu")[0]
        fits = {"gpu": lambda: _fit(problem, sampler, jax_device), "cpu": lambda: _fit(problem, sampler, cpu)}
    theta = draw_theta(emulator.parameters, max(batches))
    parts = emulator.architecture, emulator.scaling, emulator.weights
    results: dict = {
        "devices": {
            "tensorflow": tf_device and tf_device[1],
            "jax": jax_device and jax_device.device_kind,
            "cpu": f"{_processor()}, {os.cpu_count()} cores",
        },
        "engines": {"numba": _time_engine(emulator._engine, theta, batches, seconds), "xla": None, "jax": None},
        "training": {"gpu": None, "cpu": None},
        "fit": {"gpu": None, "cpu": None},
    }
    if tf_device is not None:
        from lstmfit.emulator.xla_engine import XlaEngine

        with _tf_device(tf_device[0]):
            results["engines"]["xla"] = _time_engine(XlaEngine(*parts), theta, batches, seconds)
            results["training"]["gpu"] = _updates_per_second(emulator, updates)
        with _tf_device("cpu"):
            results["training"]["cpu"] = _updates_per_second(emulator, updates)
    if jax_device is not None:
        from lstmfit.emulator.jax_engine import JaxEngine

        with _jax().default_device(jax_device):
            results["engines"]["jax"] = _time_engine(JaxEngine(*parts), theta, batches, seconds)
        results["fit"] = {name: fit() for name, fit in fits.items()}
    return results


def _jax():
    from lstmfit.emulator.jax_engine import import_jax

    return import_jax()


def _tf_device(kind):
    from lstmfit.emulator.network import import_keras

    return import_keras()[0].device(f"/{kind.upper()}:0")


def _time_engine(engine, theta, batches, seconds) -> dict:
    single = time_call(engine.single, theta[:, None], seconds)
    batched = {str(n): 1e6 * time_call(engine.batch, [(theta[:n],)], seconds) / n for n in batches}
    return {"single_ms": 1e3 * single, "batched_us": batched}


def _updates_per_second(emulator: Emulator, updates: int) -> float:
    """Speed of the training loop on signals of the emulator itself, batches of 128."""
    from lstmfit.emulator.training import UPDATES_PER_CALL, Recipe, Targets, train

    a, recipe = emulator.architecture, Recipe(updates=updates, validate_every=updates)
    theta = draw_theta(emulator.parameters, 32 * recipe.batch)
    outputs = np.asarray(emulator.raw_batch(theta), float)
    cut = a.n_channels * len(a.histories)
    histories, scalars = outputs[:, :cut].reshape(len(theta), -1, a.n_channels), outputs[:, cut:]
    data = Targets.make(a, emulator.scaling, theta, histories, scalars)
    few = Targets(*(array[:128] for array in vars(data).values()))
    times = []
    train(a, emulator.scaling, data, few, recipe, progress=lambda *_: times.append(time.perf_counter()))
    # The first call compiles the update, and the last one validates.
    return UPDATES_PER_CALL * (len(times) - 2) / (times[-2] - times[0])


def _prepare_fit(run, settings):
    """Problem and sampler of a run file, with BlackJAX instead of its own sampler."""
    from lstmfit.sampling.samplers import make_sampler

    config = run_file.load(run)
    config = config.model_copy(update={"sampler": type(config.sampler).model_validate({"blackjax": settings})})
    problem, sampler = build(config), make_sampler(config)
    sampler.check(problem)
    return problem, sampler


def _fit(problem, sampler, device) -> dict:
    with tempfile.TemporaryDirectory() as folder, _jax().default_device(device):
        began = time.perf_counter()
        result = sampler.run_here(problem, Path(folder) / ROOT)
        wall = time.perf_counter() - began
    return {"wall_s": wall, "n_like": result.n_like, "logZ": result.logZ, "logZ_err": result.logZ_err}
