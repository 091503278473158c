"""Architecture of the network, and the shapes of its weights.

All networks of this package have one layout. A small dense encoder, which gated residual blocks may follow, maps
the scaled parameters to the constant drive and the initial state of each layer. LSTM layers run over the steps, and
each step outputs a patch of channels. Without LSTM layers, all outputs are read from the encoder.
The published 21cmLSTM (Dorigo Jones et al. 2024, arXiv:2410.07619) is the special case of one channel per step, no
hidden encoder layer and zero initial states: its parameters and frequency enter every step, which is equivalent to a
constant drive plus a bias per step.
"""

import math
from dataclasses import asdict, dataclass, field
from numbers import Integral

import numpy as np

from lstmfit.errors import InputError, listed
from lstmfit.parameters import check_name
from lstmfit.schema import shown

LARGEST_SIZE = 100_000
"""Upper limit of every size; a network of this size would not fit in memory."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of the network.

    Parameters
    ----------
    n_params : int
        Number of parameters.
    n_channels : int
        Number of output channels of each history.
    units : int
        LSTM units per layer.
    layers : int
        Number of LSTM layers. With 0, all outputs are read from the encoder, and `units` has no effect.
    steps : int
        Steps of the recurrence. Each outputs ``patch`` channels; the last patch is cut if the number of channels is
        not a multiple of ``patch``.
    encoder : tuple of int
        Widths of the encoder's hidden tanh layers; may be empty.
    histories : tuple of str
        Names of the outputs that are functions of redshift; the first is the signal.
    scalars : tuple of str
        Names of the scalar outputs.
    tables : dict of str to dict of str to int
        Outputs on their own grids: for each table, the length of each axis by name.
    blocks : int
        Number of gated residual blocks after the encoder's last layer x, each of which adds tanh(x A) sigmoid(x B) to
        it, just as an LSTM adds its gated candidate to its cell state.
    """

    n_params: int
    n_channels: int
    units: int = 128
    layers: int = 2
    steps: int = 11
    encoder: tuple = (256,)
    histories: tuple = ("signal",)
    scalars: tuple = ()
    tables: dict = field(default_factory=dict)
    blocks: int = 0

    def __post_init__(self):
        for name in ("n_params", "n_channels", "units", "steps"):
            self._check_size(name, getattr(self, name))
        for name in ("layers", "blocks"):
            self._check_size(name, getattr(self, name), least=0)
        for name in ("encoder", "histories", "scalars"):
            if not isinstance(getattr(self, name), (tuple, list)) or len(getattr(self, name)) > 100:
                raise InputError(f"architecture: {name} is {shown(getattr(self, name))}; give a list")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for width in self.encoder:
            self._check_size("encoder", width)
        self._check_tables()
        outputs = (*self.histories, *self.scalars, *self.tables)
        for name in outputs:
            check_name(name, "architecture: output")
        if len(set(outputs)) < len(outputs):
            raise InputError(f"architecture: an output appears twice in {listed(outputs)}")
        if self.steps > self.n_channels:
            raise InputError(
                f"architecture: {self.steps} steps for {self.n_channels} channels; use at most one step per channel"
            )
        if not self.encoder and (self.blocks or not self.layers):
            raise InputError(
                f"architecture: {self.layers} layers and {self.blocks} blocks without an encoder; give the width of an "
                "encoder"
            )
        if not self.layers and self.steps > 1:
            raise InputError(f"architecture: {self.steps} steps without LSTM layers; give one step, or a layer")
        if not self.histories or self.histories[0] != "signal":
            raise InputError(f"architecture: histories are {listed(self.histories)}, but the first must be 'signal'")

    def _check_tables(self):
        tables = self.tables
        good = isinstance(tables, dict) and len(tables) <= 100
        if not good or not all(isinstance(axes, dict) and axes for axes in tables.values()):
            raise InputError(f"architecture: tables are {shown(tables)}; give {{NAME: {{AXIS: length}}}}")
        for axes in tables.values():
            for axis, length in axes.items():
                check_name(axis, "architecture: axis")
                self._check_size("tables", length)
        self._check_size("tables", 1 + self.n_scalars)

    @staticmethod
    def _check_size(name, value, least=1):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise InputError(f"architecture: {name} is {shown(value)}; give a whole number of at least {least}")
        if value > LARGEST_SIZE:
            raise InputError(f"architecture: {name} is {shown(value)}, but at most {LARGEST_SIZE} is allowed")

    def describe(self) -> str:
        """Short description of the network."""
        blocks = [f"{self.blocks} gated blocks of {self.encoder[-1]}"] if self.blocks else []
        recurrence = [f"{self.layers} x LSTM({self.units}), {self.steps} steps"] if self.layers else []
        return ", ".join(blocks + recurrence) or f"dense, {' x '.join(str(n) for n in self.encoder)}"

    @property
    def n_scalars(self) -> int:
        """Number of outputs besides the histories: scalars and entries of tables."""
        return len(self.scalars) + sum(math.prod(axes.values()) for axes in self.tables.values())

    @property
    def patch(self) -> int:
        """Number of channels per step."""
        return -(-self.n_channels // self.steps)

    @property
    def outputs_per_step(self) -> int:
        """Number of outputs per step: one patch for each history."""
        return self.patch * len(self.histories)

    @property
    def drive_size(self) -> int:
        """Number of outputs of the encoder: four gates, h and c for each layer."""
        return self.layers * 6 * self.units

    @property
    def hidden_size(self) -> int:
        """Size of the state that all outputs are read from: the last LSTM layer, or else the encoder."""
        return self.units if self.layers else self.encoder[-1]

    @property
    def macs(self) -> int:
        """Number of multiply-accumulate operations per signal."""
        widths = (self.n_params, *self.encoder, self.drive_size)
        encoder = sum(a * b for a, b in zip(widths[:-1], widths[1:]))
        blocks = self.blocks * 2 * self.encoder[-1] ** 2 if self.blocks else 0
        recurrent = self.steps * max(2 * self.layers - 1, 0) * 4 * self.units**2
        readout = self.hidden_size * (self.steps * self.outputs_per_step + self.n_scalars)
        return encoder + blocks + recurrent + readout

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight array, in the order of the forward pass.

        Gates are in Keras' order: input, forget, candidate, output. Those of a block are the candidate and its gate.
        """
        u, shapes = self.units, {}
        widths = (self.n_params, *self.encoder)
        for i, (a, b) in enumerate(zip(widths[:-1], widths[1:])):
            shapes[f"encoder_{i}_kernel"], shapes[f"encoder_{i}_bias"] = (a, b), (b,)
        for i in range(self.blocks):
            shapes[f"block_{i}_kernel"], shapes[f"block_{i}_bias"] = (widths[-1], 2 * widths[-1]), (2 * widths[-1],)
        if self.layers:
            shapes["drive_kernel"], shapes["drive_bias"] = (widths[-1], self.drive_size), (self.drive_size,)
        for layer in range(self.layers):
            if layer:
                shapes[f"input_{layer}"] = (u, 4 * u)
            shapes[f"recurrent_{layer}"] = (u, 4 * u)
            shapes[f"step_bias_{layer}"] = (self.steps, 4 * u)
        shapes["output_kernel"] = (self.hidden_size, self.outputs_per_step)
        shapes["output_bias"] = (self.steps, self.outputs_per_step)
        if self.n_scalars:
            shapes["scalar_kernel"], shapes["scalar_bias"] = (self.hidden_size, self.n_scalars), (self.n_scalars,)
        return shapes

    def check(self, weights: dict) -> None:
        """Raise InputError unless `weights` contains all arrays of `shapes` and all values are finite."""
        for name, shape in self.shapes().items():
            if name not in weights or np.shape(weights[name]) != shape:
                got = f"has shape {np.shape(weights[name])}" if name in weights else "is missing"
                raise InputError(f"emulator weights: {name} {got}; this architecture needs shape {shape}")
            if not np.isfinite(weights[name]).all():
                raise InputError(
                    f"emulator weights: {name} has NaN or infinite values; copy the file again or retrain the emulator"
                )

    def to_dict(self) -> dict:
        """The sizes as a dictionary that can be written as JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def gated_sizes(units: int = 160, blocks: int = 8) -> dict:
    """Sizes of a network of gated residual blocks without recurrence, as arguments of `Architecture`.

    Parameters
    ----------
    units : int
        Width of the blocks.
    blocks : int
        Number of blocks.
    """
    return {"encoder": (units,), "blocks": blocks, "layers": 0, "steps": 1}


PUBLISHED = {"units": 451, "layers": 2, "steps": 451, "encoder": ()}
"""Sizes of the published 21cmLSTM on the 21cmGEM grid."""
