"""The network in JAX: a pure function that JAX can vectorise and compile for a CPU or a GPU."""

import numpy as np

from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError

BATCH = 1024
"""Largest compiled batch. Smaller batches are padded to a power of two, so that few sizes are compiled."""


def import_jax():
    """Import the package `jax`.

    Raises
    ------
    InputError
        JAX is not installed.
    """
    try:
        import jax
    except ImportError as error:
        raise InputError(f'JAX is not installed ({error}); to fix this: pip install "lstmfit[blackjax]"') from None
    return jax


def make_forward(architecture: Architecture, scaling: Scaling, weights: dict[str, np.ndarray]):
    """Build the network as a function of physical parameters for `jax.vmap` and `jax.jit`.

    Parameters
    ----------
    architecture : Architecture
        Sizes of the network.
    scaling : Scaling
        Scaling of its inputs and outputs.
    weights : dict of str to numpy.ndarray
        Arrays named as in `Architecture.shapes`.

    Returns
    -------
    callable
        theta (n_params,) physical -> all outputs (n_out,) float32 in physical units, with the layout of
        `NumbaEngine.single`; NaN if a log parameter is not positive. The inputs are scaled in the precision of theta;
        everything else is float32.
    """
    jax = import_jax()
    jnp, a, u = jax.numpy, architecture, architecture.units
    w = {name: np.asarray(array, dtype=np.float32) for name, array in weights.items()}
    scale, offset = np.float32(scaling.scale[:, None]), np.float32(scaling.offset)
    scalar_scale, scalar_offset = np.float32(scaling.scalar_scale), np.float32(scaling.scalar_offset)

    def product(x, kernel):
        # By default GPUs round the factors to ten bits.
        return jnp.matmul(x, kernel, precision="highest")

    def sigmoid(x):
        return 0.5 * jnp.tanh(0.5 * x) + 0.5

    def recurrence(x):
        """Last hidden state, and the patches of all steps."""
        drive = (product(x, w["drive_kernel"]) + w["drive_bias"]).reshape(a.layers, 6 * u)
        start = tuple((drive[layer, 4 * u : 5 * u], drive[layer, 5 * u :]) for layer in range(a.layers))

        def step(states, biases):
            below, new = None, []
            for layer, (h, c) in enumerate(states):
                gates = drive[layer, : 4 * u] + biases[layer] + product(h, w[f"recurrent_{layer}"])
                if layer:
                    gates = gates + product(below, w[f"input_{layer}"])
                i, f, g, o = jnp.split(gates, 4)
                c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
                below = sigmoid(o) * jnp.tanh(c)
                new.append((below, c))
            return tuple(new), product(below, w["output_kernel"]) + biases[-1]

        biases = (*(w[f"step_bias_{layer}"] for layer in range(a.layers)), w["output_bias"])
        states, patches = jax.lax.scan(step, start, biases)
        return states[-1][0], patches

    def forward(theta):
        x = jnp.where(scaling.log, jnp.log10(jnp.where(scaling.log, theta, 1.0)), theta)
        x = (2.0 * (x - scaling.low) / (scaling.high - scaling.low) - 1.0).astype(jnp.float32)
        for i in range(len(a.encoder)):
            x = jnp.tanh(product(x, w[f"encoder_{i}_kernel"]) + w[f"encoder_{i}_bias"])
        for i in range(a.blocks):
            candidate, gate = jnp.split(product(x, w[f"block_{i}_kernel"]) + w[f"block_{i}_bias"], 2)
            x = x + jnp.tanh(candidate) * sigmoid(gate)
        if a.layers:
            last, patches = recurrence(x)
        else:
            last, patches = x, product(x, w["output_kernel"]) + w["output_bias"][0]
        histories = patches.reshape(a.steps, len(a.histories), a.patch).transpose(1, 0, 2)
        # The recurrence runs from high redshift to low; the output is in ascending redshift.
        histories = histories.reshape(len(a.histories), -1)[:, : a.n_channels][:, ::-1] * scale + offset
        if not a.n_scalars:
            return histories.ravel()
        scalars = product(last, w["scalar_kernel"]) + w["scalar_bias"]
        return jnp.concatenate([histories.ravel(), scalars * scalar_scale + scalar_offset])

    return forward


class JaxEngine:
    """Forward pass in float32, compiled by JAX; it runs on a GPU if JAX finds one.

    Parameters
    ----------
    architecture, scaling, weights
        As for `make_forward`.
    """

    name = "jax"

    def __init__(self, architecture: Architecture, scaling: Scaling, weights: dict[str, np.ndarray]):
        self._jax, self._parts = import_jax(), (architecture, scaling, weights)
        self.forward = make_forward(architecture, scaling, weights)
        self._many = self._jax.jit(self._jax.vmap(self.forward))
        self._n_out = architecture.n_channels * len(architecture.histories) + architecture.n_scalars

    def __reduce__(self):
        # Copies are compiled again from the weights.
        return type(self), self._parts

    def single(self, theta: np.ndarray) -> np.ndarray:
        """All outputs of one parameter set (n_params,), with the layout of `NumbaEngine.single`."""
        return self.batch(theta[None])[0]

    def batch(self, theta: np.ndarray) -> np.ndarray:
        """All outputs of many parameter sets (n, n_params)."""
        out = np.empty((len(theta), self._n_out), np.float32)
        for first in range(0, len(theta), BATCH):
            rows = np.asarray(theta[first : first + BATCH], dtype=float)
            size = 1 << (len(rows) - 1).bit_length()
            padded = np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])
            # Enable double precision only here, so that other JAX code in this process keeps its own setting.
            with self._jax.enable_x64(True):
                out[first : first + len(rows)] = np.asarray(self._many(padded))[: len(rows)]
        return out
