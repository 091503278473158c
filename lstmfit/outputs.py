"""Where the outputs of a model lie in one flat array: histories on its grid, numbers, tables."""

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np


class OutputLayout(Mapping):
    """Named outputs one after another in a flat array: by name, the place of each, an int for a number, else a slice.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of each output, in the order of the array: () of a number, (n_channels,) of a history on the grid, any
        other of a table.
    axes : mapping of str to mapping of str to array_like, optional
        Grids of each table: by the name of the output, the values of each of its axes by name, in order.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        As given.
    axes : dict of str to dict of str to numpy.ndarray
        As given.
    size : int
        Numbers in the array.

    Examples
    --------
    >>> layout = OutputLayout.of(451, ("signal", "x_HI"), ("tau",))
    >>> layout["x_HI"], layout["tau"], layout.size
    (slice(451, 902, None), 902, 903)
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], axes: Mapping[str, Mapping] | None = None):
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.axes = {
            name: {axis: np.array(values, dtype=float) for axis, values in grids.items()}
            for name, grids in (axes or {}).items()
        }
        for name, grids in self.axes.items():
            if self.shapes.get(name) != tuple(len(values) for values in grids.values()):
                raise ValueError(f"{name} has shape {self.shapes.get(name)}, but axes {grids}")
        self._where: dict[str, int | slice] = {}
        self.size = 0
        for name, shape in self.shapes.items():
            end = self.size + math.prod(shape)
            self._where[name] = slice(self.size, end) if shape else self.size
            self.size = end

    @classmethod
    def of(
        cls,
        n_channels: int,
        histories: Iterable[str],
        scalars: Iterable[str] = (),
        axes: Mapping[str, Mapping] | None = None,
    ) -> "OutputLayout":
        """The layout of histories on a grid of `n_channels`, then numbers, then tables with their axes."""
        tables = {name: tuple(len(values) for values in grids.values()) for name, grids in (axes or {}).items()}
        return cls(dict.fromkeys(histories, (n_channels,)) | dict.fromkeys(scalars, ()) | tables, axes)

    @property
    def histories(self) -> tuple[str, ...]:
        """Outputs on the redshift grid, in order; the signal is one."""
        grid = self.shapes["signal"]
        return tuple(name for name, shape in self.shapes.items() if shape == grid and name not in self.axes)

    @property
    def scalars(self) -> tuple[str, ...]:
        """Outputs that are one number, in order."""
        return tuple(name for name, shape in self.shapes.items() if not shape)

    def __getitem__(self, name: str) -> int | slice:
        return self._where[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def __repr__(self):
        return f"OutputLayout({self.shapes})"

    def take(self, flat: np.ndarray, name: str):
        """One output of flat arrays (..., size) in its shape; a view where NumPy can give one."""
        found, shape = flat[..., self._where[name]], self.shapes[name]
        return found.reshape(*flat.shape[:-1], *shape) if len(shape) > 1 else found

    def pack(self, outputs: Mapping[str, object], dtype=float) -> np.ndarray:
        """A new flat array (size,) from every output by name; further ones are left out.

        Raises
        ------
        KeyError
            One is missing.
        ValueError
            One has another shape.
        """
        flat = np.empty(self.size, dtype=dtype)
        for name, where in self._where.items():
            value = np.asarray(outputs[name])
            if value.shape != self.shapes[name]:
                raise ValueError(f"{name} has shape {value.shape}; expected {self.shapes[name]}")
            flat[where] = value.ravel() if value.ndim > 1 else value
        return flat
