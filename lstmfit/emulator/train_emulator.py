"""Train an emulator on a set of signals, and measure its errors on the test split."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmfit.datasets.signal_sets import SPLITS, SignalSet, Split, load_signals, write_test_set
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.base import BaseEmulator
from lstmfit.emulator.emulator import Emulator, shipped_test_set, test_set_path
from lstmfit.emulator.metrics import ErrorSummary, rms_error, summarise
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError, listed
from lstmfit.files import AnyPath, user_path
from lstmfit.notebook import default_progress
from lstmfit.outputs import OutputLayout

if TYPE_CHECKING:
    from lstmfit.emulator.training import Recipe


def outputs(split: Split, layout: OutputLayout) -> tuple[np.ndarray, np.ndarray]:
    """Histories (n, n_histories, n_channels) of a split, and its scalars and table entries (n, n_scalars)."""
    every = {"signal": split.signal} | split.extras
    flat = [every[name].reshape(len(split), -1) for name in (*layout.scalars, *layout.axes)]
    histories = np.stack([every[name] for name in layout.histories], axis=1)
    return histories, np.concatenate([np.empty((len(split), 0)), *flat], axis=1)


def rounded(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Round the matrices to half precision, which halves the file size; the biases keep full precision."""
    return {
        name: array.astype(np.float16).astype(array.dtype) if "bias" not in name else array
        for name, array in weights.items()
    }


def train_emulator(
    data: SignalSet, recipe: "Recipe", sizes: dict | None = None, *, start: BaseEmulator | None = None,
    name: str = "emulator", half: bool = False, **options: Any
) -> Emulator:
    """Train an emulator on a set of signals and measure its errors on the test split.

    Parameters
    ----------
    data : SignalSet
        The validation split selects the weights; the test split is used once, at the end, to measure the errors.
    recipe : lstmfit.emulator.training.Recipe
        Settings of the training.
    sizes : dict, optional
        Arguments of `Architecture` that differ from its defaults, for example those of `gated_sizes`; not with `start`,
        whose sizes are used.
    start : BaseEmulator, optional
        Emulator to start from instead of random weights, see `lstmfit.emulator.warm_start`. It has the parameters of
        the set; ranges, grid and outputs may differ.
    name : str
        Name of the emulator.
    half : bool
        Whether to round the matrices to half precision at the end.
    **options
        Passed to `lstmfit.emulator.training.train`: checkpoint, resume, progress.

    Returns
    -------
    Emulator

    Raises
    ------
    InputError
        There are no training or no validation signals, or fewer training signals than the batch size; or `start` is
        not a network of this package, or has other parameters.
    """
    from lstmfit.emulator import training, warm_start

    if start is not None:
        start = warm_start.check_start(start, data.parameters)
        if sizes:
            raise InputError(
                f"{listed(sizes)} given for a training that starts from {start.name}, whose sizes are "
                f"{start.network}; remove one of the two"
            )
        sizes = warm_start.sizes_for(start, data.redshifts)
    if not len(data.train) or not len(data.val):
        raise InputError(
            f"the set has {len(data.train)} training and {len(data.val)} validation signals, but both kinds are needed"
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
    origin: dict = {}
    if start is not None:
        options["start"] = warm_start.initial_weights(start, architecture, scaling, data.redshifts, targets[0])
        options["started_from"] = start.checksum
        origin = {"started_from": {"name": start.name, "checksum": start.checksum}}
    weights, history = training.train(architecture, scaling, *targets, recipe, **options)
    record = data.record | origin | {
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


def train(
    signals: AnyPath,
    output: AnyPath,
    *,
    start: AnyPath | None = None,
    spec: str | None = None,
    recipe: "Recipe | None" = None,
    sizes: dict | None = None,
    half: bool = False,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[int, float, float | None], None] | None = None,
) -> Emulator:
    """Train an emulator on a set of signals in a file, and write it with its test set.

    Parameters
    ----------
    signals : path
        Set of signals: HDF5, ``.npz``, or a folder of text tables.
    output : path
        Emulator file to write. Until then the training is in ``OUTPUT.checkpoint``.
    start : str or path, optional
        Name or file of an emulator to start from instead of random weights. It has the parameters of the set, in the
        same order; ranges, grid and outputs may differ.
    spec : str, optional
        Parameters and arrays of the set, see `lstmfit.datasets.specs.find_spec`; by default they are in the file.
    recipe : lstmfit.emulator.training.Recipe, optional
        Settings of the training, used as they are; the defaults take hours. They have a tenth of the updates with
        `start`, and larger batches for a network without LSTM layers, see
        `lstmfit.emulator.training.default_settings`.
    sizes : dict, optional
        Arguments of `Architecture` that differ from its defaults, for example those of `gated_sizes`; not with `start`,
        whose sizes are used.
    half : bool
        Whether to store the matrices in half precision.
    resume, force : bool
        Continue from the checkpoint; or overwrite an existing file and start over.
    progress : callable, optional
        Called with the number of updates, and the training and validation errors in percent; the latter may be None.
        In a notebook a bar is shown by default.

    Returns
    -------
    Emulator
        The emulator; the errors on its test set are in ``record["test"]``.

    Raises
    ------
    InputError
        TensorFlow is not installed, the set cannot be read, the file exists, its training is unfinished, or it cannot
        start from `start`.
    """
    from lstmfit.emulator.training import Recipe, default_settings

    path, checkpoint = check_output(output, resume=resume, force=force)
    origin = None if start is None else Emulator.load(start)
    data = load_signals(signals, spec=spec)
    if recipe is None:
        recipe = Recipe(**default_settings(warm=start is not None, sizes=sizes))
    with default_progress(progress, _described(recipe.updates)) as tell:
        emulator = train_emulator(
            data, recipe, sizes, start=origin, name=path.stem, half=half, checkpoint=checkpoint, resume=resume,
            progress=tell,
        )  # fmt: skip
    save_with_test_set(emulator, data, path)
    checkpoint.unlink(missing_ok=True)
    return emulator


def _described(updates: int) -> Callable[[int, float, float | None], tuple[float, str]]:
    """Description of a training for `lstmfit.notebook.default_progress`; it keeps the latest validation error."""
    latest = ""

    def describe(update: int, training_percent: float, validation_percent: float | None) -> tuple[float, str]:
        nonlocal latest
        if validation_percent is not None:
            latest = f"  validation {validation_percent:.3f} %"
        return update / updates, f"{update:,} of {updates:,} updates  training {training_percent:.3f} %{latest}"

    return describe


def check_output(output: AnyPath, *, resume: bool, force: bool) -> tuple[Path, Path]:
    """Path of an emulator file to write, and that of its checkpoint.

    Raises
    ------
    InputError
        The file or the checkpoint exists, and is neither to be resumed nor to be overwritten.
    """
    path = user_path(output, "output")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give a file")
    if path.exists() and not force:
        raise InputError(f"{path} already exists; use --force to replace it")
    checkpoint = path.with_name(path.name + ".checkpoint")
    if checkpoint.exists() and not (resume or force):
        raise InputError(
            f"{checkpoint}: this training is unfinished; use --resume to continue or --force to start over"
        )
    return path, checkpoint


def save_with_test_set(emulator: Emulator, data: SignalSet, path: Path) -> None:
    """Write an emulator, and the test split of its signals beside it."""
    if len(data.test):
        write_test_set(test_set_path(path), data)
    emulator.save(path)


def add_test_errors(emulator: Emulator, data: SignalSet) -> Emulator:
    """Measure the errors of an emulator on a set's test split, if there is one, and store them in the emulator."""
    if len(data.test):
        emulator.errors, summary = measure(emulator, data.test)
        emulator.record["test"] = vars(summary)
    return emulator


def measure(emulator: BaseEmulator, split: Split) -> tuple[dict[str, np.ndarray], ErrorSummary]:
    """Measure the errors of an emulator on a split.

    Parameters
    ----------
    emulator : Emulator
        The emulator to measure.
    split : Split
        Signals that were not used in training.

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
    """Errors of the outputs other than the signal, each in its own unit.

    Returns
    -------
    dict of str to dict
        ``rms`` and ``max`` over all entries, for each output of both the emulator and the split.
    """
    predicted = emulator.histories(split.theta, outside="allow")
    residuals = {name: predicted[name] - split.extras[name] for name in predicted if name in split.extras}
    return {
        name: {"rms": float(np.sqrt(np.mean(r**2))), "max": float(np.abs(r).max())} for name, r in residuals.items()
    }


def evaluation_split(
    emulator: BaseEmulator,
    source: AnyPath,
    signals: AnyPath | None = None,
    split: str = "test",
    spec: str | None = None,
) -> Split:
    """Signals for the evaluation of an emulator.

    Parameters
    ----------
    emulator : Emulator
        The emulator to evaluate.
    source : str
        Name or path it was loaded from; its own test set is in the same folder.
    signals : path, optional
        A set of signals; by default the emulator's own test set.
    split : {"train", "val", "test", "all"}
        Part of the set; ignored for the emulator's own test set.
    spec : SignalSpec, str or path, optional
        Description of a set that does not name its parameters, see `lstmfit.datasets.signal_sets.load_signals`.

    Raises
    ------
    InputError
        There is no test set, the split is empty, or the set has another grid or other parameters.
    """
    if split not in (*SPLITS, "all"):
        raise InputError(f"split is {split!r}; expected one of {', '.join(SPLITS)}, all")
    if signals is None:
        if spec is not None:
            raise InputError(f"spec {spec} is given without the set of signals it describes; add the set or omit spec")
        data = shipped_test_set(source)
        if data is None:
            raise InputError(f"emulator {source} has no test set of its own; give a set of signals")
        return data
    found = load_signals(signals, SPLITS if split == "all" else (split,), spec)
    if len(found.redshifts) != len(emulator.redshifts) or not np.allclose(found.redshifts, emulator.redshifts):
        raise InputError(
            f"{signals} and {source} have different redshift grids; give a set on the grid of the emulator"
        )
    names = [p.name for p in found.parameters]
    if names != list(emulator.names):
        raise InputError(
            f"{signals} has parameters {', '.join(names)}, but {source} has {', '.join(emulator.names)}; give a set "
            "with the parameters of the emulator"
        )
    data = found.whole if split == "all" else getattr(found, split)
    if not len(data):
        raise InputError(f"{signals} has no signals in the split {split!r}; choose another split")
    return data


def evaluate(emulator: BaseEmulator, split: Split, low: float | None = None, high: float | None = None) -> ErrorSummary:
    """Errors of an emulator on a split, optionally within a band in MHz; see `rms_error`."""
    return summarise(*rms_error(emulator(split.theta, outside="allow"), split.signal, emulator.redshifts, low, high))
