"""From a set of signals to an emulator: network, training, test errors, one file."""

import time

import numpy as np

from lstmfit.datasets.signal_sets import SPLITS, SignalSet, Split, load_signals
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.base import BaseEmulator
from lstmfit.emulator.emulator import Emulator, shipped_test_set
from lstmfit.emulator.metrics import ErrorSummary, rms_error, summarise
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError
from lstmfit.outputs import OutputLayout


def outputs(split: Split, layout: OutputLayout) -> tuple[np.ndarray, np.ndarray]:
    """Histories (n, n_histories, n_channels), and numbers with the entries of tables (n, n_scalars), of a split."""
    every = {"signal": split.signal} | split.extras
    flat = [every[name].reshape(len(split), -1) for name in (*layout.scalars, *layout.axes)]
    histories = np.stack([every[name] for name in layout.histories], axis=1)
    return histories, np.concatenate([np.empty((len(split), 0)), *flat], axis=1)


def rounded(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights with the matrices rounded to half precision, which halves the file; the biases keep their digits."""
    return {
        name: array.astype(np.float16).astype(array.dtype) if "bias" not in name else array
        for name, array in weights.items()
    }


def train_emulator(
    data: SignalSet, recipe, sizes: dict | None = None, *, name="emulator", half: bool = False, **options
) -> Emulator:
    """Train an emulator on a set and measure it on the set's test split.

    Parameters
    ----------
    data : SignalSet
        Its validation split chooses the weights; its test split is used once, at the end, for the stored errors.
    recipe : lstmfit.emulator.training.Recipe
        How to train.
    sizes : dict, optional
        Arguments of `Architecture` that differ from its defaults.
    name : str
        Name of the emulator.
    half : bool
        Round the matrices to half precision at the end.
    **options
        Passed to `lstmfit.emulator.training.train`: checkpoint, resume, progress.

    Returns
    -------
    Emulator

    Raises
    ------
    InputError
        No training or validation signals, or fewer signals than a batch.
    """
    from lstmfit.emulator import training

    if not len(data.train) or not len(data.val):
        raise InputError(
            f"the set has {len(data.train)} training and {len(data.val)} validation signals; both are needed"
        )
    layout = data.layout
    histories, scalars = outputs(data.train, layout)
    architecture = Architecture(
        len(data.parameters),
        len(data.redshifts),
        histories=layout.histories,
        scalars=layout.scalars,
        tables={name: {axis: len(values) for axis, values in grids.items()} for name, grids in layout.axes.items()},
        **(sizes or {}),
    )
    scaling = Scaling.fit(data.parameters, histories, scalars)
    targets = [
        training.Targets.make(architecture, scaling, split.theta, *outputs(split, layout))
        for split in (data.train, data.val)
    ]
    started = time.time()
    weights, history = training.train(architecture, scaling, *targets, recipe, **options)
    record = data.record | {
        "n_train": len(data.train),
        "n_val": len(data.val),
        "recipe": {key: getattr(recipe, key) for key in recipe.__dataclass_fields__},
        "history": vars(history),
        "trained": time.strftime("%Y-%m-%d", time.gmtime(started)),
    }
    if half:
        weights = rounded(weights)
    emulator = Emulator(
        architecture, scaling, weights, data.redshifts, data.parameters, record=record, name=name, axes=layout.axes
    )
    return add_test_errors(emulator, data)


def add_test_errors(emulator: Emulator, data: SignalSet) -> Emulator:
    """Measure an emulator on a set's test split, where there is one, and let it carry the result."""
    if len(data.test):
        emulator.errors, summary = measure(emulator, data.test)
        emulator.record["test"] = vars(summary)
    return emulator


def measure(emulator: BaseEmulator, split: Split) -> tuple[dict[str, np.ndarray], ErrorSummary]:
    """Error arrays and their summary on a split.

    Parameters
    ----------
    emulator : Emulator
        What to measure.
    split : Split
        Signals that training never saw.

    Returns
    -------
    errors : dict of str to numpy.ndarray
        ``bias`` and ``rms`` (n_channels,) mK, ``covariance`` (n_channels, n_channels) mK^2 about zero, ``relative``
        (n,) fractions, and ``rms_NAME`` of each extra output.
    summary : ErrorSummary
    """
    predicted = emulator.histories(split.theta, outside="allow")
    residual = predicted["signal"] - split.signal
    absolute, relative = rms_error(predicted["signal"], split.signal)
    errors = {
        "bias": residual.mean(axis=0),
        "rms": np.sqrt(np.mean(residual**2, axis=0)),
        "covariance": residual.T @ residual / len(residual),
        "relative": relative.astype(np.float32),
    }
    for name in predicted:
        if name in split.extras:
            errors[f"rms_{name}"] = np.sqrt(np.mean((predicted[name] - split.extras[name]) ** 2, axis=0))
    return errors, summarise(absolute, relative)


def other_errors(emulator: BaseEmulator, split: Split) -> dict[str, dict[str, float]]:
    """Errors of the outputs beside the signal, each in its own unit.

    Returns
    -------
    dict of str to dict
        ``rms`` and ``max`` of each output that both the emulator and the split have, over all entries.
    """
    predicted = emulator.histories(split.theta, outside="allow")
    residuals = {name: predicted[name] - split.extras[name] for name in predicted if name in split.extras}
    return {
        name: {"rms": float(np.sqrt(np.mean(r**2))), "max": float(np.abs(r).max())} for name, r in residuals.items()
    }


def evaluation_split(emulator: BaseEmulator, source, signals=None, split="test", spec=None) -> Split:
    """Signals to measure an emulator on.

    Parameters
    ----------
    emulator : Emulator
        What will be measured.
    source : str
        What it was loaded from: its own test set lies beside it.
    signals : path, optional
        A set of signals; the emulator's own test set by default.
    split : {"train", "val", "test", "all"}
        Which part of the set; ignored for the emulator's own test set.
    spec : SignalSpec, str or path, optional
        Description of a set that does not name its parameters, see `lstmfit.datasets.signal_sets.load_signals`.

    Raises
    ------
    InputError
        No test set, an empty split, or a set on another grid or with other parameters.
    """
    if split not in (*SPLITS, "all"):
        raise InputError(f"split is {split!r}; expected one of {', '.join(SPLITS)}, all")
    if signals is None:
        if spec is not None:
            raise InputError(f"spec {spec} describes a set of signals; give the set too, or leave the spec out")
        data = shipped_test_set(source)
        if data is None:
            raise InputError(f"{source} has no test set beside it; give a set of signals")
        return data
    found = load_signals(signals, SPLITS if split == "all" else (split,), spec)
    if len(found.redshifts) != len(emulator.redshifts) or not np.allclose(found.redshifts, emulator.redshifts):
        raise InputError(f"{signals} and {source} are on different redshift grids")
    names = [p.name for p in found.parameters]
    if names != list(emulator.names):
        raise InputError(f"{signals} has parameters {', '.join(names)}; {source} has {', '.join(emulator.names)}")
    data = found.whole if split == "all" else getattr(found, split)
    if not len(data):
        raise InputError(f"{signals} has no {split} signals")
    return data


def evaluate(emulator: BaseEmulator, split: Split, low=None, high=None) -> ErrorSummary:
    """Errors of an emulator on a split, in a band (MHz) where an edge is given; see `rms_error`."""
    return summarise(*rms_error(emulator(split.theta, outside="allow"), split.signal, emulator.redshifts, low, high))
