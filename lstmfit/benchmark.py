"""Compare the speed of emulators on one core in a single run."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from lstmfit.emulator.emulator import Emulator
from lstmfit.errors import InputError
from lstmfit.parameters import Parameter


def run_bench(*sources: str, peers: bool = True) -> dict:
    """Time single calls of emulators, and calls per signal in batches of 1,024.

    Parameters
    ----------
    *sources : str
        Names of shipped emulators or emulator files, also of other packages; by default ``echo21``.
    peers : bool
        Also time the network of the first one in XLA, if it is an LSTM of lstmfit, and the published 21cmLSTM (two LSTM
        layers of 451 units over 451 steps, with random weights, which do not affect the time), both eagerly as in its
        authors' code and compiled by XLA. Requires TensorFlow.

    Returns
    -------
    dict
        name -> {single_ms, batched_us, engine, threads}: each emulator on one core and on all, with float32 matrices on
        one core, and its peers. `batched_us` is None where no batch was timed.
    """
    sources = sources or ("echo21",)
    emulators = [Emulator.load(source) for source in sources]
    results = {}
    for source, emulator in zip(sources, emulators):
        results |= _own(source, emulator)
    if peers:
        results |= _peers(emulators[0], draw_theta(emulators[0].parameters, 1024))
    return results


def _own(source, emulator):
    import numba

    theta = draw_theta(emulator.parameters, 1024)
    results = {}
    single = time_call(emulator.raw, theta[:, None], 1.0)
    for threads in sorted({1, numba.config.NUMBA_NUM_THREADS}):  # type: ignore[attr-defined]
        emulator._engine.threads = threads
        batched = time_call(emulator._engine.batch, theta[None, None], 1.0) / len(theta)
        name = emulator.name if threads == 1 else f"{emulator.name}, all cores"
        results[name] = _row(single if threads == 1 else None, batched, emulator.engine, threads)
    if emulator.engine == "numba" and isinstance(emulator, Emulator):
        wide = Emulator.load(source, engine="numba32")
        wide._engine.threads = 1
        batched = time_call(wide.raw_batch, theta[None, None], 1.0) / len(theta)
        results[f"{emulator.name}, float32"] = _row(time_call(wide.raw, theta[:, None], 1.0), batched, wide.engine, 1)
    return results


def draw_theta(parameters: Sequence[Parameter], n: int) -> np.ndarray:
    """Parameter sets within the ranges, (n, n_params) physical, always the same."""
    low, high = np.array([(p.min, p.max) for p in parameters]).T
    log = np.array([p.log for p in parameters])
    u = np.random.default_rng(0).uniform(size=(n, len(low)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(log, low * (high / low) ** u, low + u * (high - low))


def _row(single, batched, engine, threads):
    return {
        "single_ms": None if single is None else 1e3 * single,
        "batched_us": None if batched is None else 1e6 * batched,
        "engine": engine,
        "threads": threads,
    }


def _peers(emulator, theta):
    from lstmfit.emulator.network import build, import_keras

    tf, keras = import_keras()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        raise InputError(
            "TensorFlow is already running with more than one thread; start the benchmark in a new process"
        ) from None
    results = {}
    if isinstance(emulator, Emulator):
        model = build(emulator.architecture, 0, emulator.weights)
        x = tf.constant(emulator.scaling.inputs(theta), tf.float32)
        compiled = tf.function(lambda x: model(x)[0], jit_compile=True)
        one = time_call(lambda i: compiled(x[:1]).numpy(), [(0,)], 1.0)
        many = time_call(lambda i: compiled(x).numpy(), [(0,)], 1.0) / len(theta)
        results[f"{emulator.name} in XLA"] = _row(one, many, "XLA", 1)
    published = keras.Sequential(
        [
            keras.layers.Input((451, 8)),
            keras.layers.LSTM(451, return_sequences=True),
            keras.layers.LSTM(451, return_sequences=True),
            keras.layers.Dense(1),
        ]
    )
    y = tf.constant(np.random.default_rng(1).uniform(size=(1, 451, 8)), tf.float32)
    eager = time_call(lambda i: published(y).numpy(), [(0,)], 3.0)
    results["published 21cmLSTM, eager"] = _row(eager, None, "Keras", 1)
    graph = tf.function(lambda y: published(y), jit_compile=True)
    results["published 21cmLSTM, XLA"] = _row(time_call(lambda i: graph(y).numpy(), [(0,)], 2.0), None, "XLA", 1)
    return results


def time_call(function: Callable, arguments: Sequence, seconds: float) -> float:
    """Median time of a call in seconds over five rounds, about `seconds` in total; the first call is not timed."""
    function(*arguments[0])
    start = time.perf_counter()
    function(*arguments[0])
    n = max(1, int(seconds / 5 / (time.perf_counter() - start)))
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for i in range(n):
            function(*arguments[i % len(arguments)])
        rounds.append((time.perf_counter() - start) / n)
    return float(np.median(rounds))
