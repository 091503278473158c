"""The network in Keras, for training and for the XLA engine. TensorFlow is only needed here."""

import os

import numpy as np

from lstmfit.emulator.architecture import Architecture
from lstmfit.errors import InputError


def import_keras():
    """Import Keras and TensorFlow with few log messages.

    Returns
    -------
    tuple of module
        ``(tensorflow, keras)``.

    Raises
    ------
    InputError
        TensorFlow is not installed.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import keras
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            f'training needs TensorFlow, which cannot be imported ({error}); to fix this: pip install "lstmfit[train]"'
        ) from None
    return tf, keras


def build(architecture: Architecture, seed: int, weights: dict[str, np.ndarray] | None = None):
    """Build the Keras model.

    Parameters
    ----------
    architecture : Architecture
        Sizes of the network.
    seed : int
        Seed of the initial weights: Glorot-uniform kernels, orthogonal recurrent kernels, forget bias of one.
    weights : dict of str to numpy.ndarray, optional
        Initial weights to use instead of random ones.

    Returns
    -------
    keras.Model
        Maps scaled inputs (n, n_params) to ((n, n_histories, steps * patch), (n, n_scalars)), float32. The histories
        are in DESCENDING redshift, the order of the recurrence, and include the spare channels of the last patch. The
        weights have the names of `Architecture.shapes`.
    """
    tf, keras = import_keras()
    a, u = architecture, architecture.units
    start = weights or initial_weights(architecture, seed)
    architecture.check(start)

    class PatchedLSTM(keras.Model):  # type: ignore[name-defined]
        def __init__(self):
            super().__init__(name="patched_lstm")
            self.arrays = {
                name: self.add_weight(name=name, shape=shape, initializer=keras.initializers.Constant(0.0))
                for name, shape in a.shapes().items()
            }
            for name, variable in self.arrays.items():
                variable.assign(start[name].astype("float32"))
            self.built = True

        def call(self, x):
            w = self.arrays
            for i in range(len(a.encoder)):
                x = tf.tanh(x @ w[f"encoder_{i}_kernel"] + w[f"encoder_{i}_bias"])
            for i in range(a.blocks):
                candidate, gate = tf.split(x @ w[f"block_{i}_kernel"] + w[f"block_{i}_bias"], 2, axis=1)
                x += tf.tanh(candidate) * tf.sigmoid(gate)
            top = self.recurrence(x) if a.layers else x[None]
            out = tf.reshape(top, (-1, a.hidden_size)) @ w["output_kernel"]
            out = tf.reshape(out, (a.steps, -1, a.outputs_per_step)) + w["output_bias"][:, None, :]
            out = tf.reshape(out, (a.steps, -1, len(a.histories), a.patch))
            histories = tf.reshape(tf.transpose(out, (1, 2, 0, 3)), (-1, len(a.histories), a.steps * a.patch))
            if a.n_scalars:
                return histories, top[-1] @ w["scalar_kernel"] + w["scalar_bias"]
            return histories, tf.zeros((tf.shape(histories)[0], 0))

        def recurrence(self, x):
            """Hidden states of the last layer, (steps, n, units)."""
            w = self.arrays
            drive = tf.reshape(x @ w["drive_kernel"] + w["drive_bias"], (-1, a.layers, 6 * u))
            constant = [drive[:, layer, : 4 * u] for layer in range(a.layers)]
            h = tuple(drive[:, layer, 4 * u : 5 * u] for layer in range(a.layers))
            c = tuple(drive[:, layer, 5 * u :] for layer in range(a.layers))

            def step_function(h, c, biases):
                new_h, new_c = [], []
                for layer in range(a.layers):
                    gates = constant[layer] + biases[layer] + h[layer] @ w[f"recurrent_{layer}"]
                    if layer:
                        gates += new_h[layer - 1] @ w[f"input_{layer}"]
                    i, f, g, o = tf.split(gates, 4, axis=1)
                    cell = tf.sigmoid(f) * c[layer] + tf.sigmoid(i) * tf.tanh(g)
                    new_c.append(cell)
                    new_h.append(tf.sigmoid(o) * tf.tanh(cell))
                return tuple(new_h), tuple(new_c)

            if a.steps <= UNROLLED_STEPS:
                tops = []
                for step in range(a.steps):
                    h, c = step_function(h, c, [w[f"step_bias_{layer}"][step] for layer in range(a.layers)])
                    tops.append(h[-1])
                return tf.stack(tops, axis=0)
            biases = tuple(tf.convert_to_tensor(w[f"step_bias_{layer}"]) for layer in range(a.layers))
            hs, _ = tf.scan(lambda state, b: step_function(*state, b), biases, initializer=(h, c))
            return hs[-1]

    return PatchedLSTM()


UNROLLED_STEPS = 64
"""With more steps the recurrence is a loop in the graph: unrolled, it would take XLA minutes to compile."""


def initial_weights(architecture: Architecture, seed: int) -> dict[str, np.ndarray]:
    """Random initial weights, distributed as in the LSTM and Dense layers of Keras.

    Parameters
    ----------
    architecture : Architecture
        Sizes of the network.
    seed : int
        Seed of the random numbers.

    Returns
    -------
    dict of str to numpy.ndarray
        float32 arrays.
    """
    rng, u = np.random.default_rng(seed), architecture.units
    arrays = {}
    for name, shape in architecture.shapes().items():
        if name.startswith("recurrent"):
            arrays[name] = np.linalg.qr(rng.standard_normal((shape[1], shape[0])))[0].T
        elif name.endswith("kernel") or name.startswith("input"):
            limit = np.sqrt(6.0 / (shape[-2] + shape[-1]))
            arrays[name] = rng.uniform(-limit, limit, shape)
        else:
            arrays[name] = np.zeros(shape)
        if name.startswith("step_bias"):
            arrays[name][:, u : 2 * u] = 1.0
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def read_weights(model) -> dict[str, np.ndarray]:
    """Weights of the model as arrays, by name."""
    return {name: variable.numpy() for name, variable in model.arrays.items()}
