"""Training: the quoted error as loss, the Muon optimiser, best weights by validation error, exact resuming."""

import json
import logging
import math
import time
import zipfile
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from lstmfit._version import __version__
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.network import build, import_keras, read_weights
from lstmfit.emulator.scaling import Scaling
from lstmfit.errors import InputError, one_line
from lstmfit.files import replacing
from lstmfit.schema import INT32, shown

log = logging.getLogger(__name__)


def _check_integer(name, value, low, high):
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        raise InputError(f"{name.replace('_', ' ')} is {shown(value)}; give a whole number from {low} to {high}")


@dataclass(frozen=True)
class Recipe:
    """Settings of the training.

    Parameters
    ----------
    updates : int
        Total number of gradient steps, over which the learning rate falls to zero.
    batch : int
        Signals per step.
    learning_rate : float
        Peak learning rate of Muon, which updates the matrices.
    adam_ratio : float
        Ratio of the learning rate of Adam, which updates the vectors (biases), to that of Muon.
    weight_decay : float
        Fraction by which the matrices shrink per step and unit of learning rate.
    warm_up : int
        Number of steps over which the learning rate rises from zero.
    clip_norm : float
        Upper limit of the global norm of the gradient.
    extra_weight : float
        Weight of the mean square errors of the extra outputs relative to the loss of the signal.
    validate_every : int
        Steps between validations.
    seed : int
        Seed of the initial weights and of the order of the signals.
    """

    updates: int = 100_000
    batch: int = 128
    learning_rate: float = 1.25e-2
    adam_ratio: float = 0.3
    weight_decay: float = 0.01
    warm_up: int = 300
    clip_norm: float = 1.0
    extra_weight: float = 0.01
    validate_every: int = 1000
    seed: int = 0

    def __post_init__(self):
        for name in ("updates", "batch", "validate_every"):
            _check_integer(name, getattr(self, name), 1, INT32)
        _check_integer("warm_up", self.warm_up, 0, INT32)
        _check_integer("seed", self.seed, 0, INT32)
        for name in ("learning_rate", "adam_ratio", "clip_norm", "weight_decay", "extra_weight"):
            value, least = getattr(self, name), 0.0 if name in ("weight_decay", "extra_weight") else 1e-12
            if isinstance(value, bool) or not isinstance(value, Real) or not least <= value <= 1e6:
                raise InputError(f"{name.replace('_', ' ')} is {shown(value)}; give a number from {least:g} to 1e6")


GATED = {"batch": 512, "learning_rate": 1e-2}
"""Settings for a network without recurrence, where they differ from the defaults of `Recipe`. There the optimiser takes
longer than the gradient of 128 signals, so larger batches cost little."""
WARM = {"updates": 10_000, "learning_rate": 4e-3}
"""Settings of a training that starts from an emulator, where they differ from the defaults of `Recipe`."""


def default_settings(*, warm: bool, sizes: dict | None) -> dict:
    """Settings that differ from the defaults of `Recipe`.

    Parameters
    ----------
    warm : bool
        Whether the training starts from an emulator; `WARM` then, for any network.
    sizes : dict, optional
        Arguments of `Architecture`; `GATED` if there are no LSTM layers.
    """
    if warm:
        return WARM
    return GATED if (sizes or {}).get("layers") == 0 else {}


@dataclass
class Targets:
    """Training or validation data in network units.

    Parameters
    ----------
    inputs : numpy.ndarray
        (n, n_params).
    histories : numpy.ndarray
        (n, n_histories, steps * patch) in descending redshift, the order of the recurrence; spare channels are zero.
    scalars : numpy.ndarray
        (n, n_scalars).
    weight : numpy.ndarray
        (n,) weight of each signal, (scale / max |T|)^2, so that the weighted mean square is the quoted error squared.
    """

    inputs: np.ndarray
    histories: np.ndarray
    scalars: np.ndarray
    weight: np.ndarray

    @classmethod
    def make(cls, architecture: Architecture, scaling: Scaling, theta, histories, scalars) -> "Targets":
        """Scale physical parameters (n, n_params), histories (n, n_histories, n_channels) and scalars."""
        n, width = len(theta), architecture.steps * architecture.patch
        padded = np.zeros((n, len(architecture.histories), width), np.float32)
        scaled = (histories - scaling.offset) / scaling.scale[:, None]
        padded[:, :, : architecture.n_channels] = scaled[:, :, ::-1]
        peak = np.abs(histories[:, 0]).max(axis=1)
        return cls(
            scaling.inputs(theta).astype(np.float32),
            padded,
            ((scalars - scaling.scalar_offset) / scaling.scalar_scale).astype(np.float32).reshape(n, -1),
            ((scaling.scale[0] / peak) ** 2).astype(np.float32),
        )


@dataclass
class History:
    """Course of the training, with one entry per validation."""

    update: list = field(default_factory=list)
    training_percent: list = field(default_factory=list)
    validation_percent: list = field(default_factory=list)
    seconds: list = field(default_factory=list)


def train(
    architecture: Architecture,
    scaling: Scaling,
    training: Targets,
    validation: Targets,
    recipe: Recipe,
    *,
    checkpoint=None,
    resume: bool = False,
    start: dict | None = None,
    started_from: str = "",
    progress=None,
):
    """Train the weights of the network.

    The loss is the mean over signals of (rms error / max |T|)^2, the square of the quoted error (Eq. 3 of Dorigo Jones
    et al. 2024), plus ``extra_weight`` times the mean square errors of the extra outputs. Muon updates the matrices and
    Adam the vectors. The learning rate has a linear warm-up, then a cosine decay to zero.

    Parameters
    ----------
    architecture, scaling : Architecture, Scaling
        The network and its scaling.
    training, validation : Targets
        Scaled data; the weights with the lowest error on `validation` are kept.
    recipe : Recipe
        Settings of the training.
    checkpoint : path, optional
        File that is replaced at every validation.
    resume : bool
        Whether to resume from `checkpoint`. On the same machine the weights are then the same as without the
        interruption.
    start : dict of str to numpy.ndarray, optional
        Initial weights; by default random ones from the seed. They are the result if no update improves on them.
    started_from : str
        Checksum of the emulator that `start` was made from; a checkpoint of another one is not resumed.
    progress : callable, optional
        Called as ``progress(update, training_percent, validation_percent)`` after every `UPDATES_PER_CALL` updates.
        The training error is the root mean square since the last validation; the validation error is a mean, and None
        between validations.

    Returns
    -------
    weights : dict of str to numpy.ndarray
        Weights with the lowest validation error.
    history : History
        Course of the errors.

    Raises
    ------
    InputError
        There are fewer training signals than the batch size, there is nothing to resume, or the checkpoint belongs to
        another recipe or network.
    """
    if len(training.inputs) < recipe.batch:
        raise InputError(
            f"{len(training.inputs)} training signals for a batch size of {recipe.batch}; lower --batch or simulate "
            "more signals"
        )
    tf, keras = import_keras()
    model = build(architecture, recipe.seed, start)
    optimizer = _optimizer(keras, recipe)
    optimizer.build(model.trainable_variables)
    update = _compile_update(tf, architecture, recipe, model, optimizer)
    validate = _compile_validation(tf, architecture, model)

    identity = json.dumps(
        {
            "recipe": asdict(recipe),
            "architecture": architecture.to_dict(),
            "n": len(training.inputs),
            "version": __version__,
            "started_from": started_from,
        }
    )
    history, best, best_error, done = History(), read_weights(model), np.inf, 0
    if resume:
        history, best, best_error, done = _load_checkpoint(checkpoint, identity, model, optimizer)
        log.info("resuming at update %d", done)
    order, offset = _Shuffle(recipe.seed, len(training.inputs), recipe.batch), time.monotonic()
    if history.seconds:
        offset -= history.seconds[-1]
    if start is not None and not done:
        # The result is then never worse than the start.
        best_error = _validation_percent(tf, validate, validation)
        log.info("validation error before the first update: %.4f %%", best_error)
    data = training.inputs, training.histories, training.scalars, training.weight
    total, count = 0.0, 0
    if done < recipe.updates:
        log.info("compiling the training step, which takes up to a minute")
    while done < recipe.updates:
        n = min(UPDATES_PER_CALL, recipe.updates - done, recipe.validate_every - done % recipe.validate_every)
        rows = np.stack([order.rows(done + i) for i in range(n)])
        total += float(update(*(tf.constant(x[rows]) for x in data))) * n
        count += n
        done += n
        if done % recipe.validate_every and done < recipe.updates:
            if progress is not None:
                progress(done, 100.0 * float(np.sqrt(total / count)), None)
            continue
        error = _validation_percent(tf, validate, validation)
        history.update.append(done)
        history.training_percent.append(100.0 * float(np.sqrt(total / count)))
        history.validation_percent.append(error)
        history.seconds.append(time.monotonic() - offset)
        total, count = 0.0, 0
        if error < best_error:
            best, best_error = read_weights(model), error
        if checkpoint is not None:
            _save_checkpoint(checkpoint, identity, model, optimizer, history, best, best_error, done)
        if progress is not None:
            progress(done, history.training_percent[-1], error)
    return best, history


UPDATES_PER_CALL = 20
"""Gradient steps per compiled call; the overhead of a call into TensorFlow is as long as a small step."""


def _optimizer(keras, recipe):
    class WarmCosine(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            step = keras.ops.cast(step, "float32")
            warm = step / max(recipe.warm_up, 1)
            span = max(recipe.updates - recipe.warm_up, 1)
            fraction = keras.ops.clip((step - recipe.warm_up) / span, 0.0, 1.0)
            return recipe.learning_rate * keras.ops.minimum(warm, 0.5 * (1.0 + keras.ops.cos(math.pi * fraction)))

        def get_config(self):
            return asdict(recipe)

    class Muon(keras.optimizers.Muon):
        """The Newton-Schulz iteration in the small square of a matrix, for half of the operations.

        Every step multiplies the matrix X from the left by a polynomial Q of A = X X^T, after which A is Q A Q. Only
        the product of the polynomials is needed, so X itself enters twice instead of twice per step.
        """

        def zeropower_via_newtonschulz5(self, x, steps):
            a, b, c = self.muon_a, self.muon_b, self.muon_c
            tall = x.shape[0] > x.shape[1]
            if tall:
                x = keras.ops.transpose(x)
            x = x / (keras.ops.norm(x) + 1e-7)
            square, identity, product = x @ keras.ops.transpose(x), keras.ops.eye(x.shape[0]), None
            for i in range(steps):
                polynomial = a * identity + b * square + c * square @ square
                product = polynomial if product is None else polynomial @ product
                if i < steps - 1:
                    square = polynomial @ square @ polynomial
            x = product @ x
            return keras.ops.transpose(x) if tall else x

    return Muon(
        WarmCosine(), adam_lr_ratio=recipe.adam_ratio, global_clipnorm=recipe.clip_norm, exclude_embeddings=False,
        exclude_layers=["bias"], weight_decay=recipe.weight_decay or None, adam_weight_decay=None,
    )


def _compile_update(tf, architecture, recipe, model, optimizer):
    n = architecture.n_channels
    # A table has the same weight as a scalar.
    tables = [math.prod(axes.values()) for axes in architecture.tables.values()]
    shares = np.array([1.0] * len(architecture.scalars) + [1.0 / m for m in tables for _ in range(m)], np.float32)

    def loss_of(x, y, s, weight):
        histories, scalars = model(x)
        square = tf.reduce_mean((histories - y)[:, :, :n] ** 2, axis=2)
        loss = tf.reduce_mean(weight * square[:, 0])
        extra = recipe.extra_weight * (tf.reduce_sum(tf.reduce_mean(square[:, 1:], axis=0)) + tf.reduce_sum(
            shares * tf.reduce_mean((scalars - s) ** 2, axis=0)))
        return loss, loss + extra

    # Compiled by XLA. TensorFlow's own executor is 20 % faster on one core, but two trainings with it differ in the
    # last bit and, after a few thousand updates, everywhere.
    @tf.function(autograph=False, jit_compile=True)
    def update(inputs, histories, scalars, weight):
        def body(i, total):
            batch = inputs[i], histories[i], scalars[i], weight[i]
            with tf.GradientTape() as tape:
                loss, objective = loss_of(*batch)
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(objective, variables), variables))
            return i + 1, total + loss

        m = tf.shape(inputs)[0]
        _, total = tf.while_loop(lambda i, _: i < m, body, (tf.constant(0), tf.constant(0.0)))
        return total / tf.cast(m, tf.float32)

    return update


def _compile_validation(tf, architecture, model):
    n = architecture.n_channels

    @tf.function(autograph=False, jit_compile=True)
    def validate(batch):
        histories, _ = model(batch[0])
        return tf.sqrt(batch[2] * tf.reduce_mean((histories - batch[1])[:, 0, :n] ** 2, axis=1))

    return validate


def _validation_percent(tf, validate, targets):
    return 100.0 * float(np.mean(np.concatenate([validate(batch) for batch in _batches(tf, targets)])))


def _batches(tf, targets, size=1024):
    for i in range(0, len(targets.inputs), size):
        yield tuple(tf.constant(x[i : i + size]) for x in (targets.inputs, targets.histories, targets.weight))


class _Shuffle:
    """Rows of every update; they depend only on the seed and the update, so a resumed run uses the same ones."""

    def __init__(self, seed, n, batch):
        self.seed, self.n, self.batch, self.per_epoch = seed, n, batch, n // batch
        self.epoch, self.order = None, None

    def rows(self, update):
        epoch, i = divmod(update, self.per_epoch)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.n)
        return self.order[i * self.batch : (i + 1) * self.batch]


def _save_checkpoint(path, identity, model, optimizer, history, best, best_error, done):
    arrays = {f"model/{k}": v for k, v in read_weights(model).items()} | {f"best/{k}": v for k, v in best.items()}
    arrays |= {f"optimizer/{i}": v.numpy() for i, v in enumerate(optimizer.variables)}
    state = {"identity": identity, "history": asdict(history), "best_error": best_error, "done": done}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, state=np.array(json.dumps(state)), **arrays)


def _load_checkpoint(path, identity, model, optimizer):
    if not Path(path).exists():
        raise InputError(f"nothing to resume: {path} does not exist; train without --resume")
    try:
        with np.load(path, allow_pickle=False) as file:
            state = json.loads(str(file["state"]))
            if state["identity"] != identity:
                raise InputError(
                    f"{path} belongs to a training with different settings; repeat the command that started it, or "
                    "delete the file"
                )
            for name, variable in model.arrays.items():
                variable.assign(file[f"model/{name}"])
            for i, variable in enumerate(optimizer.variables):
                variable.assign(file[f"optimizer/{i}"])
            best = {name: file[f"best/{name}"] for name in model.arrays}
        return History(**state["history"]), best, float(state["best_error"]), int(state["done"])
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a complete checkpoint ({one_line(error, 120)}); delete it and train without --resume"
        ) from None
