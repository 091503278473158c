"""Initial weights of a training that starts from an existing emulator."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.base import BaseEmulator
from lstmfit.emulator.emulator import Emulator
from lstmfit.emulator.numpy_engine import features, hidden_states, states
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError
from lstmfit.parameters import Parameter

if TYPE_CHECKING:
    from lstmfit.emulator.training import Targets

N_FIT = 4096
"""Training signals that readout and initial state are fitted to."""
RIDGE = 1e-5
"""Ridge of the readout relative to the mean variance of a hidden unit."""
STATE_RIDGE = 1e-3
"""Ridge of the initial state. With 1e-5 its weights are ten times as large, and the first updates destroy the fit."""


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


def matching_steps(emulator: Emulator, redshifts: np.ndarray) -> tuple[int, int]:
    """Steps of the recurrence for another grid, such that each covers about the redshifts of a step of the emulator.

    Parameters
    ----------
    emulator : Emulator
        The emulator to start from.
    redshifts : numpy.ndarray
        (n_channels,) ascending, the grid of the set.

    Returns
    -------
    steps : int
        Number of steps.
    first : int
        Step of the emulator that corresponds to the first one; negative if the grid begins at higher redshifts.
    """
    old = _centres(emulator.redshifts, emulator.architecture.steps)
    if len(old) == 1:
        return 1, 0

    def position(z):
        """Step of the emulator, as a real number, extrapolated beyond its grid."""
        step = np.clip(np.searchsorted(-old, -z) - 1, 0, len(old) - 2)
        return step + (old[step] - z) / (old[step] - old[step + 1])

    top, bottom = position(redshifts[[-1, 0]])
    trials = []
    for steps in {int(bottom - top), int(bottom - top) + 1}:
        if 1 <= steps <= len(redshifts):
            offsets = position(_centres(redshifts, steps)) - np.arange(steps)
            first = round(offsets.mean())
            trials.append((float(np.mean((offsets - first) ** 2)), steps, first))
    _, steps, first = min(trials)
    return steps, first


def _centres(redshifts: np.ndarray, steps: int) -> np.ndarray:
    """Mean redshift of the channels of each step, from high to low; steps without channels are left out."""
    patch = -(-len(redshifts) // steps)
    return np.array([redshifts[::-1][i : i + patch].mean() for i in range(0, len(redshifts), patch)])


def sizes_for(emulator: Emulator, redshifts: np.ndarray) -> dict:
    """Sizes of the network of an emulator as arguments of `Architecture`, with the steps that fit another grid."""
    a = emulator.architecture
    steps = matching_steps(emulator, redshifts)[0]
    return {"units": a.units, "layers": a.layers, "encoder": a.encoder, "blocks": a.blocks, "steps": steps}


def initial_weights(
    emulator: Emulator, architecture: Architecture, scaling: Scaling, redshifts: np.ndarray, training: "Targets"
) -> dict[str, np.ndarray]:
    """Weights of an emulator, converted to another scaling, grid and set of outputs.

    The first matrix takes up the new scaling of the inputs, which does not change the function. The matrices of the
    blocks and of the recurrence are kept. If the grid begins at a later step, the initial state is the linear
    least-squares fit of the encoder to the state before that step. The readout, which alone depends on the channels and
    on the scaling of the outputs, is that of the hidden states to the training signals, with the weights of the loss.

    Parameters
    ----------
    emulator : Emulator
        The emulator, see `check_start`.
    architecture, scaling : Architecture, Scaling
        The network to train, with the sizes of `sizes_for`, and its scaling.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    training : lstmfit.emulator.training.Targets
        Training data; up to `N_FIT` signals are used.

    Returns
    -------
    dict of str to numpy.ndarray
        float32, named as in `Architecture.shapes`.
    """
    a, old, rows = architecture, emulator.architecture, slice(0, N_FIT)
    weights, inputs = _rescaled(emulator, scaling), training.inputs[rows]
    n = len(inputs)
    share, equal = training.weight[rows] / training.weight[rows].sum(dtype=float), np.full(n, 1.0 / n)
    _, first = matching_steps(emulator, redshifts)
    if 0 < first:
        state = next(itertools.islice(states(old, weights, inputs), min(first, old.steps), None))
        wanted = np.concatenate(_interleaved(state), axis=1)
        kernel, bias = _fit(features(old, weights, inputs)[:, None], wanted[:, None], equal, ridge=STATE_RIDGE)
        where = np.concatenate([np.arange(4 * a.units, 6 * a.units) + 6 * a.units * i for i in range(a.layers)])
        weights["drive_kernel"], weights["drive_bias"] = (
            np.array(weights[f"drive_{part}"], float) for part in ("kernel", "bias")
        )
        weights["drive_kernel"][:, where], weights["drive_bias"][where] = kernel, bias[0]
    which = np.clip(first + np.arange(a.steps), 0, old.steps - 1)
    for layer in range(a.layers):
        weights[f"step_bias_{layer}"] = weights[f"step_bias_{layer}"][which]
    hidden = hidden_states(a, weights, inputs)
    targets = training.histories[rows].astype(float).reshape(n, len(a.histories), a.steps, a.patch)
    targets = targets.transpose(0, 2, 1, 3).reshape(n, a.steps, -1)
    weights["output_kernel"], weights["output_bias"] = _fit(hidden, targets, share, _used(a))
    if a.n_scalars:
        kernel, bias = _fit(hidden[:, -1:], training.scalars[rows, None].astype(float), equal)
        weights["scalar_kernel"], weights["scalar_bias"] = kernel, bias[0]
    return {name: np.asarray(weights[name], np.float32) for name in a.shapes()}


def _interleaved(state):
    """Arrays h, c of the first layer, then of the second, and so on: the order of the drive."""
    return [array for both in zip(*state) for array in both]


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


def _used(a: Architecture) -> np.ndarray:
    """Which outputs of each step are channels, not spare ones: bool (steps, n_histories * patch)."""
    channels = np.arange(a.steps * a.patch).reshape(a.steps, a.patch) < a.n_channels
    return np.tile(channels, (1, len(a.histories)))


def _fit(
    hidden: np.ndarray,
    targets: np.ndarray,
    share: np.ndarray,
    used: np.ndarray | None = None,
    *,
    ridge: float = RIDGE,
) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares fit of one matrix for all steps, and a bias for each.

    Parameters
    ----------
    hidden : numpy.ndarray
        (n, steps, units).
    targets : numpy.ndarray
        (n, steps, n_outputs).
    share : numpy.ndarray
        (n,) weights that add up to one.
    used : numpy.ndarray, optional
        (steps, n_outputs), whether an output is fitted, by default all; kernel and bias of one that is never used are
        zero.
    ridge : float
        Ridge relative to the mean variance of a hidden unit.

    Returns
    -------
    tuple of numpy.ndarray
        Kernel (units, n_outputs) and bias (steps, n_outputs).
    """
    kernel, bias = np.zeros((hidden.shape[2], targets.shape[2])), np.zeros(targets.shape[1:])
    used = np.ones(targets.shape[1:], bool) if used is None else used
    patterns, which = np.unique(used, axis=1, return_inverse=True)
    for i, steps in enumerate(patterns.T):
        columns = np.flatnonzero(which == i)
        x, y = hidden[:, steps], targets[:, steps][:, :, columns]
        mean_x, mean_y = np.tensordot(share, x, 1), np.tensordot(share, y, 1)
        x, y = ((values - mean).reshape(-1, values.shape[2]) for values, mean in ((x, mean_x), (y, mean_y)))
        weighted = x * np.repeat(share, steps.sum())[:, None]
        gram = weighted.T @ x
        gram[np.diag_indices_from(gram)] += ridge * gram.trace() / len(gram) + np.finfo(float).tiny
        kernel[:, columns] = np.linalg.solve(gram, weighted.T @ y)
        bias[np.ix_(steps, columns)] = mean_y - mean_x @ kernel[:, columns]
    return kernel, bias
