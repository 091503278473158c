"""The network compiled by XLA through TensorFlow, for GPUs; shapes are fixed, so that nothing is traced twice."""

import numpy as np

from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.network import build, import_keras
from lstmfit.emulator.scaling import Scaling

BATCH = 1024
"""Signals per compiled batch; an incomplete batch is padded."""


class XlaEngine:
    """Forward pass and derivatives in float32; it runs on a GPU if TensorFlow finds one.

    Parameters
    ----------
    architecture : Architecture
        Sizes of the network.
    scaling : Scaling
        Scaling of its inputs and outputs.
    weights : dict of str to numpy.ndarray
        Arrays named as in `Architecture.shapes`.
    """

    name = "xla"

    def __init__(self, architecture: Architecture, scaling: Scaling, weights: dict[str, np.ndarray]):
        self._tf, _ = import_keras()
        self._parts = architecture, scaling, weights
        self._a, self._scaling = architecture, scaling
        self._model = build(architecture, 0, weights)
        tf, a = self._tf, architecture
        scale, offset = (np.float32(x) for x in (scaling.scale[:, None], scaling.offset))
        scalar_scale, scalar_offset = np.float32(scaling.scalar_scale), np.float32(scaling.scalar_offset)

        def run(x):
            histories, scalars = self._model(x)
            histories = tf.reverse(histories[:, :, : a.n_channels], axis=[2]) * scale + offset
            return tf.concat([tf.reshape(histories, (-1, len(a.histories) * a.n_channels)),
                              scalars * scalar_scale + scalar_offset], axis=1)

        def derive(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                signal = run(x)[:, : a.n_channels]
            return tape.batch_jacobian(signal, x)

        self._single, self._batch = (
            tf.function(run, input_signature=[tf.TensorSpec((n, a.n_params), tf.float32)], jit_compile=True)
            for n in (1, BATCH)
        )
        self._derive = tf.function(
            derive, input_signature=[tf.TensorSpec((1, a.n_params), tf.float32)], jit_compile=True
        )

    def __reduce__(self):
        # Copies are compiled again from the weights.
        return type(self), self._parts

    def _inputs(self, theta):
        return self._tf.constant(self._scaling.inputs(theta), self._tf.float32)

    def single(self, theta: np.ndarray) -> np.ndarray:
        """All outputs of one parameter set (n_params,), with the layout of `NumbaEngine.single`."""
        return self._single(self._inputs(theta[None])).numpy()[0]

    def batch(self, theta: np.ndarray) -> np.ndarray:
        """All outputs of many parameter sets (n, n_params)."""
        out = []
        for i in range(0, len(theta), BATCH):
            rows = theta[i : i + BATCH]
            padded = np.vstack([rows, np.repeat(rows[:1], BATCH - len(rows), axis=0)])
            out.append(self._batch(self._inputs(padded)).numpy()[: len(rows)])
        return np.concatenate(out)

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of the signal with respect to the scaled inputs, (..., n_channels, n_params) mK."""
        rows = np.atleast_2d(theta)
        out = np.array([self._derive(self._inputs(row[None])).numpy()[0] for row in rows], dtype=float)
        return out.reshape(*theta.shape[:-1], *out.shape[1:])
