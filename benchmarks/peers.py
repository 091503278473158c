"""Train published emulators on the same set with the same compute budget, and compare errors and latencies.

    python benchmarks/peers.py SET.h5 -o OUT.json --seconds 300 --n 8192

Every peer gets the same training, validation and test signals and the same wall time on one core; the weights are
those that were best on the validation split. globalemu is its own package (`pip install globalemu`), trained by its
own code; the layouts of 21cmLSTM, 21cmVAE and 21cmKAN follow their repositories. Results: docs/results/peers.md. A
latency is that of one signal, called one at a time: as the authors call it, and compiled by XLA.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np

from lstmfit.datasets.signal_sets import SignalSet, load_signals
from lstmfit.emulator.metrics import rms_error, summarise
from lstmfit.emulator.network import import_keras
from lstmfit.emulator.train_emulator import evaluate, train_emulator

PEERS = ("lstmfit", "21cmLSTM", "21cmVAE", "21cmKAN", "globalemu")


def inputs(data, split):
    """Parameters scaled to -1..1, in log10 for log parameters."""
    low, high = np.array([(p.min, p.max) for p in data.parameters]).T
    log = np.array([p.log for p in data.parameters])
    x, low, high = (np.where(log, np.log10(np.where(log, a, 1.0)), a) for a in (split.theta, low, high))
    return (2 * (x - low) / (high - low) - 1).astype(np.float32)


def timed(function, seconds=2.0):
    """Median time of a call in seconds."""
    function()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def latencies(model, x):
    """Time per signal in milliseconds: eager, and compiled by XLA."""
    tf, _ = import_keras()
    one = tf.constant(x[:1])
    compiled = tf.function(lambda a: model(a, training=False), jit_compile=True)
    return 1e3 * timed(lambda: model(one, training=False).numpy()), 1e3 * timed(lambda: compiled(one).numpy())


def fit_keras(model, train, val, budget, batch, callbacks=()):
    """Train for `budget` seconds and keep the best weights by the validation loss."""
    _, keras = import_keras()

    class Budget(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.end, self.best, self.loss = time.monotonic() + budget, None, np.inf

        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training |= time.monotonic() > self.end

        def on_epoch_end(self, epoch, logs=None):
            if logs["val_loss"] < self.loss:
                self.loss, self.best = logs["val_loss"], self.model.get_weights()

    watch = Budget()
    while time.monotonic() < watch.end:
        model.fit(*train, batch_size=batch, epochs=1, validation_data=val, verbose=0, callbacks=[watch, *callbacks])
    model.set_weights(watch.best)


def vae(data, budget):
    """21cmVAE's direct emulator: 288-352-288-224 ReLU, MSE / amplitude^2, Adam 0.01, rate reduced on plateaus."""
    tf, keras = import_keras()
    mean, scale = data.train.signal.mean(axis=0), data.train.signal.std()
    layers = [keras.layers.Dense(n, "relu") for n in (288, 352, 288, 224)]
    model = keras.Sequential([keras.layers.Input((len(data.parameters),)), *layers, keras.layers.Dense(len(mean))])

    def loss(y, y_):
        amplitude = tf.reduce_max(tf.abs(y * scale + mean), axis=1) / scale
        return tf.reduce_mean((y - y_) ** 2, axis=1) / amplitude**2

    model.compile(keras.optimizers.Adam(0.01), loss)
    sets = [(inputs(data, s), (s.signal - mean) / scale) for s in (data.train, data.val)]
    plateau = keras.callbacks.ReduceLROnPlateau(factor=0.95, patience=5)
    fit_keras(model, *sets, budget, 256, [plateau])
    x = inputs(data, data.test)
    return model.predict(x, verbose=0) * scale + mean, *latencies(model, x)


def kan(data, budget):
    """21cmKAN's layout: 44-44-71 Kolmogorov-Arnold layers, grid 7, cubic splines; AdamW 1e-3, decay 1e-4, batch 100."""
    tf, keras = import_keras()
    order, grid = 3, 7

    class Kan(keras.layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.units = units
            step = 2.0 / grid
            self.knots = tf.constant(np.arange(-order, grid + order + 1) * step - 1.0, tf.float32)

        def build(self, shape):
            n = shape[-1]
            self.base = self.add_weight(shape=(n, self.units), initializer="glorot_uniform")
            self.spline = self.add_weight(
                shape=(n * (grid + order), self.units), initializer=keras.initializers.RandomNormal(stddev=0.1 / grid)
            )

        def call(self, x):
            z, t = x[..., None], self.knots
            b = tf.cast((z >= t[:-1]) & (z < t[1:]), tf.float32)
            for k in range(1, order + 1):
                left = (z - t[: -k - 1]) / (t[k:-1] - t[: -k - 1])
                right = (t[k + 1 :] - z) / (t[k + 1 :] - t[1:-k])
                b = left * b[..., :-1] + right * b[..., 1:]
            return tf.nn.silu(x) @ self.base + tf.reshape(b, (-1, x.shape[-1] * (grid + order))) @ self.spline

    low, high = data.train.signal.min(), data.train.signal.max()
    layers = [Kan(n) for n in (44, 44, 71, len(data.redshifts))]
    model = keras.Sequential([keras.layers.Input((len(data.parameters),)), *layers])
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=1e-4), "mse")
    sets = [(inputs(data, s), (s.signal - low) / (high - low)) for s in (data.train, data.val)]
    fit_keras(model, *sets, budget, 100)
    x = inputs(data, data.test)
    return model.predict(x, verbose=0) * (high - low) + low, *latencies(model, x)


def lstm(data, budget):
    """21cmLSTM: two LSTM layers of 451 units over the channels, batch 10, Adam 1e-3, MSE of 0..1 signals."""
    _, keras = import_keras()
    low, high, n = data.train.signal.min(), data.train.signal.max(), len(data.redshifts)

    def sequences(split):
        x = np.empty((len(split), n, len(data.parameters) + 1), np.float32)
        x[:, :, :-1] = 0.5 * (inputs(data, split)[:, None] + 1)
        nu = 1 / (1 + data.redshifts[::-1])
        x[:, :, -1] = (nu - nu.min()) / np.ptp(nu)
        return x, ((split.signal[:, ::-1] - low) / (high - low))[:, :, None]

    layers = [keras.layers.LSTM(n, return_sequences=True) for _ in range(2)]
    model = keras.Sequential([keras.layers.Input((n, len(data.parameters) + 1)), *layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    # Validation on all signals would exceed the whole budget.
    val = tuple(a[:64] for a in sequences(data.val))
    fit_keras(model, sequences(data.train), val, budget, 10)
    x, _ = sequences(data.test)
    predicted = np.concatenate([model.predict(x[i : i + 64], verbose=0) for i in range(0, len(x), 64)])
    return predicted[:, ::-1, 0] * (high - low) + low, *latencies(model, x)


def globalemu(data, budget):
    """The package globalemu with its own code: 3 x 16 tanh, batch 451, Adam 1e-3; no AFB, which needs a download."""
    import tempfile

    from globalemu.eval import evaluate as evaluate_globalemu
    from globalemu.network import nn
    from globalemu.preprocess import process

    logs = [i for i, p in enumerate(data.parameters) if p.log]
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        os.chdir(folder)
        try:
            Path("data").mkdir()
            for name, split in (("train", data.train), ("test", data.val)):
                np.savetxt(f"data/{name}_data.txt", split.theta)
                np.savetxt(f"data/{name}_labels.txt", split.signal)
            process("full", data.redshifts, base_dir="model/", data_location="data/", AFB=False, logs=logs)
            options = {"base_dir": "model/", "batch_size": 451, "layer_sizes": [16, 16, 16], "random_seed": 0}
            options["input_shape"] = len(data.parameters) + 1
            start = time.monotonic()
            # Start with two epochs, because it cannot resume from a history of one.
            nn(epochs=2, **options)
            while time.monotonic() < start + budget:
                nn(epochs=1, resume=True, **options)
            emulator = evaluate_globalemu(base_dir="model/", logs=logs)
            predicted = emulator(data.test.theta.copy())[0]
            eager = 1e3 * timed(lambda: emulator(data.test.theta[0].copy()))
        finally:
            os.chdir(before)
    return predicted, eager, None


def ours(data, budget, rate):
    """Our default recipe, with as many updates as the budget allows at `rate` updates per second."""
    from lstmfit.emulator.training import Recipe

    emulator = train_emulator(data, Recipe(updates=int(budget * rate), validate_every=200))
    theta = data.test.theta[0]
    return emulator, 1e3 * timed(lambda: emulator(theta))


def picture(content, path):
    """Plot error against latency, for the authors' code (open) and the fastest variant (filled)."""
    from lstmfit.analysis.plots import new_figure, save

    figure = new_figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for i, (name, row) in enumerate(content["results"].items()):
        called, best = row["latency_as_called_ms"], row["latency_best_ms"] or row["latency_as_called_ms"]
        axes.plot([called, best], [row["mean_percent"]] * 2, color=f"C{i}", lw=0.8)
        axes.plot(called, row["mean_percent"], "o", color=f"C{i}", mfc="white")
        axes.plot(best, row["mean_percent"], "o", color=f"C{i}", label=name)
    axes.set(xscale="log", yscale="log", xlabel="one signal on one core [ms]", ylabel="mean relative rms error [%]")
    axes.set_title(f"{content['seconds']:.0f} s of training on {content['n_train']} signals of ECHO21", fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def main():
    """Train the emulators, and write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set")
    parser.add_argument("-o", "--output", default="peers.json")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--n", type=int, default=8192)
    parser.add_argument("--rate", type=float, default=35.0, help="updates a second of our recipe here")
    parser.add_argument("peers", nargs="*", default=PEERS)
    arguments = parser.parse_intermixed_args()
    whole = load_signals(arguments.set)
    sizes = ((whole.train, arguments.n), (whole.val, 1024), (whole.test, 1024))
    splits = [split.rows(slice(n)) for split, n in sizes]
    data = SignalSet(whole.redshifts, whole.parameters, *splits, whole.record)
    target = Path(arguments.output)
    content = json.loads(target.read_text()) if target.is_file() else {"results": {}}
    machine = platform.processor() or platform.machine()
    content |= {"seconds": arguments.seconds, "n_train": arguments.n, "machine": machine}
    for peer in arguments.peers:
        start = time.monotonic()
        if peer == "lstmfit":
            emulator, eager = ours(data, arguments.seconds, arguments.rate)
            summary, compiled = evaluate(emulator, data.test), eager
        else:
            train = {"21cmLSTM": lstm, "21cmVAE": vae, "21cmKAN": kan, "globalemu": globalemu}[peer]
            predicted, eager, compiled = train(data, arguments.seconds)
            summary = summarise(*rms_error(predicted, data.test.signal))
        content["results"][peer] = vars(summary) | {
            "latency_as_called_ms": eager,
            "latency_best_ms": compiled,
            "wall_s": time.monotonic() - start,
        }
        print(peer, json.dumps(content["results"][peer]), flush=True)
        target.write_text(json.dumps(content, indent=2) + "\n")
    picture(content, target.with_suffix(".png"))


if __name__ == "__main__":
    main()
