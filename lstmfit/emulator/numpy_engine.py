"""The forward pass in NumPy and float64: the reference for testing the faster engines."""

import numpy as np

from lstmfit.emulator.architecture import Architecture


def forward(architecture: Architecture, weights: dict[str, np.ndarray], inputs: np.ndarray):
    """Run the network.

    Parameters
    ----------
    architecture : Architecture
        Sizes of the network.
    weights : dict of str to numpy.ndarray
        Arrays named as in `Architecture.shapes`.
    inputs : numpy.ndarray
        (n, n_params) scaled parameters.

    Returns
    -------
    histories : numpy.ndarray
        (n, n_histories, n_channels) in network units, in ascending redshift.
    scalars : numpy.ndarray
        (n, n_scalars) in network units.
    """
    a = architecture
    w = {k: np.asarray(v, dtype=float) for k, v in weights.items()}
    top = hidden_states(a, weights, inputs)
    out = (top @ w["output_kernel"] + w["output_bias"]).reshape(len(inputs), a.steps, len(a.histories), a.patch)
    histories = out.transpose(0, 2, 1, 3).reshape(len(inputs), len(a.histories), a.steps * a.patch)
    # The recurrence runs forward in time, from high redshift to low; the output is in ascending redshift.
    histories = histories[:, :, : a.n_channels][:, :, ::-1]
    scalars = top[:, -1] @ w["scalar_kernel"] + w["scalar_bias"] if a.n_scalars else np.empty((len(inputs), 0))
    return histories, scalars


def features(architecture: Architecture, weights: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """Output of the encoder's hidden layers and blocks for scaled parameters (n, n_params): (n, width)."""
    x = np.asarray(inputs, dtype=float)

    def affine(name):
        kernel, bias = (np.asarray(weights[f"{name}_{part}"], float) for part in ("kernel", "bias"))
        return x @ kernel + bias

    for i in range(len(architecture.encoder)):
        x = np.tanh(affine(f"encoder_{i}"))
    for i in range(architecture.blocks):
        candidate, gate = np.split(affine(f"block_{i}"), 2, axis=1)
        x = x + np.tanh(candidate) * _sigmoid(gate)
    return x


def hidden_states(architecture: Architecture, weights: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """State that the outputs are read from after each step, for scaled parameters (n, n_params): (n, steps, size)."""
    if not architecture.layers:
        return features(architecture, weights, inputs)[:, None]
    return np.stack([h[-1] for h, _ in states(architecture, weights, inputs)][1:], axis=1)


def states(architecture: Architecture, weights: dict[str, np.ndarray], inputs: np.ndarray):
    """Yield the states (h, c) before the first step and after each step, as lists over layers of (n, units)."""
    a, u = architecture, architecture.units
    w = {k: np.asarray(v, dtype=float) for k, v in weights.items()}
    drive = features(a, w, inputs) @ w["drive_kernel"] + w["drive_bias"]
    drive = drive.reshape(len(drive), a.layers, 6 * u)
    constant = drive[:, :, : 4 * u]
    h = [drive[:, layer, 4 * u : 5 * u] for layer in range(a.layers)]
    c = [drive[:, layer, 5 * u :] for layer in range(a.layers)]
    yield list(h), list(c)
    for step in range(a.steps):
        for layer in range(a.layers):
            gates = constant[:, layer] + w[f"step_bias_{layer}"][step] + h[layer] @ w[f"recurrent_{layer}"]
            if layer:
                gates = gates + h[layer - 1] @ w[f"input_{layer}"]
            i, f, g, o = np.split(gates, 4, axis=1)
            c[layer] = _sigmoid(f) * c[layer] + _sigmoid(i) * np.tanh(g)
            h[layer] = _sigmoid(o) * np.tanh(c[layer])
        yield list(h), list(c)


def _sigmoid(x):
    return 0.5 * np.tanh(0.5 * x) + 0.5


def signal_jacobian(architecture: Architecture, weights: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """Derivatives of the signal with respect to the scaled inputs, by forward differentiation.

    Parameters
    ----------
    architecture, weights
        As for `forward`.
    inputs : numpy.ndarray
        (n_params,) scaled parameters.

    Returns
    -------
    numpy.ndarray
        (n_channels, n_params) in network units, in ascending redshift.
    """
    a, u = architecture, architecture.units
    w = {k: np.asarray(v, dtype=float) for k, v in weights.items()}
    # Row 0 is the value and the other rows are its derivatives; a linear map acts on all rows alike.
    x = np.vstack([inputs, np.eye(len(inputs))])

    def affine(rows, kernel, bias):
        out = rows @ kernel
        out[0] += bias
        return out

    def apply(rows, value, slope):
        return np.vstack([value, slope * rows[1:]])

    def tanh(rows):
        t = np.tanh(rows[0])
        return apply(rows, t, 1.0 - t * t)

    def sigmoid(rows):
        s = _sigmoid(rows[0])
        return apply(rows, s, s * (1.0 - s))

    def product(p, q):
        return np.vstack([p[0] * q[0], p[0] * q[1:] + q[0] * p[1:]])

    for i in range(len(a.encoder)):
        x = tanh(affine(x, w[f"encoder_{i}_kernel"], w[f"encoder_{i}_bias"]))
    for i in range(a.blocks):
        candidate, gate = np.split(affine(x, w[f"block_{i}_kernel"], w[f"block_{i}_bias"]), 2, axis=1)
        x = x + product(tanh(candidate), sigmoid(gate))
    if not a.layers:
        return (x[1:] @ w["output_kernel"][:, : a.n_channels])[:, ::-1].T
    drive = affine(x, w["drive_kernel"], w["drive_bias"]).reshape(len(x), a.layers, 6 * u)
    h = [drive[:, layer, 4 * u : 5 * u] for layer in range(a.layers)]
    c = [drive[:, layer, 5 * u :] for layer in range(a.layers)]
    patches = []
    for step in range(a.steps):
        for layer in range(a.layers):
            gates = affine(h[layer], w[f"recurrent_{layer}"], w[f"step_bias_{layer}"][step]) + drive[:, layer, : 4 * u]
            if layer:
                gates += h[layer - 1] @ w[f"input_{layer}"]
            i, f, g, o = np.split(gates, 4, axis=1)
            c[layer] = product(sigmoid(f), c[layer]) + product(sigmoid(i), tanh(g))
            h[layer] = product(sigmoid(o), tanh(c[layer]))
        patches.append(h[-1][1:] @ w["output_kernel"][:, : a.patch])
    return np.concatenate(patches, axis=1)[:, : a.n_channels][:, ::-1].T
