"""Layout of the outputs of a model in a flat array: histories on its grid, numbers, tables."""

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np


class OutputLayout(Mapping):
    """Named outputs, stored one after the other in a flat array.

    A mapping from the name of an output to its position in the array: an int for a number, otherwise a slice.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of each output, in the order of the array: () for a number, (n_channels,) for a history on the grid, any
        other shape for a table.
    axes : mapping of str to mapping of str to array_like, optional
        Grids of the tables: for each table, the values along each of its axes by name, in order.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        The parameter `shapes`.
    axes : dict of str to dict of str to numpy.ndarray
        The parameter `axes`.
    size : int
        Length of the array.

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
        """Layout with histories on a grid of `n_channels` first, then numbers, then tables with their axes."""
        tables = {name: tuple(len(values) for values in grids.values()) for name, grids in (axes or {}).items()}
        return cls(dict.fromkeys(histories, (n_channels,)) | dict.fromkeys(scalars, ()) | tables, axes)

    @property
    def histories(self) -> tuple[str, ...]:
        """Names of the outputs on the redshift grid, including the signal, in order."""
        grid = self.shapes["signal"]
        return tuple(name for name, shape in self.shapes.items() if shape == grid and name not in self.axes)

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the outputs that are numbers, in order."""
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
        """Extract an output from flat arrays (..., size), in its own shape; a view if possible."""
        found, shape = flat[..., self._where[name]], self.shapes[name]
        return found.reshape(*flat.shape[:-1], *shape) if len(shape) > 1 else found

    def pack(self, outputs: Mapping[str, object], dtype=float) -> np.ndarray:
        """Write outputs given by name to a new flat array (size,), ignoring unknown names.

        Raises
        ------
        KeyError
            An output is missing.
        ValueError
            An output has another shape.
        """
        flat = np.empty(self.size, dtype=dtype)
        for name, where in self._where.items():
            value = np.asarray(outputs[name])
            if value.shape != self.shapes[name]:
                raise ValueError(f"{name} has shape {value.shape}; expected {self.shapes[name]}")
            flat[where] = value.ravel() if value.ndim > 1 else value
        return flat
