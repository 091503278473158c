"""Initial weights of a training that starts from an existing emulator."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.base import BaseEmulator
from lstmfit.emulator.emulator import Emulator
from lstmfit.emulator.numpy_engine import forward
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError
from lstmfit.parameters import Parameter

if TYPE_CHECKING:
    from lstmfit.emulator.training import Targets

N_FIT = 4096
"""Training signals that the readout is fitted to."""
RIDGE = 1e-9
"""Ridge of that fit, relative to the mean variance of a hidden unit; it only matters for units that do not vary."""


def check_start(emulator: BaseEmulator, parameters: Sequence[Parameter]) -> Emulator:
    """Check that a training on a set with these parameters can start from an emulator.

    Parameters
    ----------
    emulator : BaseEmulator
        The emulator to start from.
    parameters : sequence of Parameter
        Parameters of the set. Their names, order and log flags must be those of the emulator; ranges may differ.

    Returns
    -------
    Emulator

    Raises
    ------
    InputError
        The emulator is of another kind, or has other parameters.
    """
    if not isinstance(emulator, Emulator):
        raise InputError(
            f"cannot start from {emulator.name} ({emulator.network}): it is not a network of lstmfit; give a shipped "
            "emulator or a file of `lstmfit train`"
        )
    ours, theirs = (
        ", ".join(f"log10 {p.name}" if p.log else p.name for p in which) for which in (parameters, emulator.parameters)
    )
    if ours != theirs:
        raise InputError(
            f"cannot start from {emulator.name}: its parameters are {theirs}, but those of the set are {ours}; give an "
            "emulator with the parameters of the set in the same order"
        )
    return emulator


def sizes_of(architecture: Architecture) -> dict:
    """Arguments of `Architecture` that do not depend on the set of signals."""
    return {key: getattr(architecture, key) for key in ("units", "layers", "steps", "encoder")}


def initial_weights(
    emulator: Emulator, architecture: Architecture, scaling: Scaling, training: "Targets"
) -> dict[str, np.ndarray]:
    """Weights of an emulator, converted to another scaling and to other outputs.

    The first matrix takes up the new scaling of the inputs, which does not change the function. The matrices of the
    recurrence are kept. The readout, which alone depends on the grid and on the scaling of the outputs, is the linear
    least-squares fit of the hidden states to the training signals, with the weights of the loss.

    Parameters
    ----------
    emulator : Emulator
        The emulator, see `check_start`.
    architecture, scaling : Architecture, Scaling
        The network to train and its scaling; its sizes are those of the emulator.
    training : lstmfit.emulator.training.Targets
        Training data; up to `N_FIT` signals are used.

    Returns
    -------
    dict of str to numpy.ndarray
        float32, named as in `Architecture.shapes`.
    """
    weights = _rescaled(emulator, scaling)
    rows = slice(0, N_FIT)
    hidden = _hidden(emulator.architecture, weights, training.inputs[rows])
    a, share = architecture, training.weight[rows].astype(float) / training.weight[rows].sum(dtype=float)
    targets = training.histories[rows].astype(float)
    n = len(targets)
    targets = targets.reshape(n, len(a.histories), a.steps, a.patch).transpose(0, 2, 1, 3).reshape(n, a.steps, -1)
    weights["output_kernel"], weights["output_bias"] = _readout(hidden, targets, share, _used(a))
    for name in ("scalar_kernel", "scalar_bias"):
        weights.pop(name, None)
    if a.n_scalars:
        equal = np.full(n, 1.0 / n)
        scalars, used = training.scalars[rows, None].astype(float), np.ones((1, a.n_scalars), bool)
        kernel, bias = _readout(hidden[:, -1:], scalars, equal, used)
        weights["scalar_kernel"], weights["scalar_bias"] = kernel, bias[0]
    return {name: np.asarray(array, np.float32) for name, array in weights.items()}


def _rescaled(emulator: Emulator, scaling: Scaling) -> dict[str, np.ndarray]:
    """Weights of the same function of physical parameters for inputs of another scaling."""
    old, weights = emulator.scaling, dict(emulator.weights)
    layer = "encoder_0" if emulator.architecture.encoder else "drive"
    kernel = np.asarray(weights[f"{layer}_kernel"], float)
    width = old.high - old.low
    slope = (scaling.high - scaling.low) / width
    shift = slope - 1.0 + 2.0 * (scaling.low - old.low) / width
    weights[f"{layer}_kernel"] = slope[:, None] * kernel
    weights[f"{layer}_bias"] = weights[f"{layer}_bias"] + shift @ kernel
    return weights


def _hidden(architecture: Architecture, weights: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """States of the last layer (n, steps, units): the outputs of a network whose readout is the identity."""
    a = dataclasses.replace(
        architecture, n_channels=architecture.steps * architecture.units, histories=("signal",), scalars=(), tables={}
    )
    readout = {"output_kernel": np.eye(a.units), "output_bias": np.zeros((a.steps, a.units))}
    states = forward(a, weights | readout, inputs)[0][:, 0, ::-1]
    return states.reshape(len(inputs), a.steps, a.units)


def _used(a: Architecture) -> np.ndarray:
    """Which outputs of each step are channels, not spare ones: bool (steps, n_histories * patch)."""
    channels = np.arange(a.steps * a.patch).reshape(a.steps, a.patch) < a.n_channels
    return np.tile(channels, (1, len(a.histories)))


def _readout(hidden: np.ndarray, targets: np.ndarray, share: np.ndarray, used: np.ndarray):
    """Least-squares fit of one matrix for all steps, and a bias for each.

    Parameters
    ----------
    hidden : numpy.ndarray
        (n, steps, units).
    targets : numpy.ndarray
        (n, steps, n_outputs).
    share : numpy.ndarray
        (n,) weights that add up to one.
    used : numpy.ndarray
        (steps, n_outputs), whether an output is fitted; kernel and bias of one that is never used are zero.

    Returns
    -------
    tuple of numpy.ndarray
        Kernel (units, n_outputs) and bias (steps, n_outputs).
    """
    kernel, bias = np.zeros((hidden.shape[2], targets.shape[2])), np.zeros(targets.shape[1:])
    patterns, which = np.unique(used, axis=1, return_inverse=True)
    for i, steps in enumerate(patterns.T):
        columns = np.flatnonzero(which == i)
        x, y = hidden[:, steps], targets[:, steps][:, :, columns]
        mean_x, mean_y = np.tensordot(share, x, 1), np.tensordot(share, y, 1)
        x, y = ((values - mean).reshape(-1, values.shape[2]) for values, mean in ((x, mean_x), (y, mean_y)))
        weighted = x * np.repeat(share, steps.sum())[:, None]
        gram = weighted.T @ x
        gram[np.diag_indices_from(gram)] += RIDGE * gram.trace() / len(gram) + np.finfo(float).tiny
        kernel[:, columns] = np.linalg.solve(gram, weighted.T @ y)
        bias[np.ix_(steps, columns)] = mean_y - mean_x @ kernel[:, columns]
    return kernel, bias
