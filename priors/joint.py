"""The joint prior: it defines which parameters are sampled and their order."""

from collections.abc import Mapping

import numpy as np

from lstmfit.errors import InputError
from lstmfit.priors.distributions import Distribution


class Prior:
    """Product of independent priors.

    Parameters
    ----------
    distributions : mapping of str to Distribution
        In the order of theta.
    latex : mapping of str to str, optional
        LaTeX labels without dollar signs; the name where there is none.
    """

    def __init__(self, distributions: Mapping[str, Distribution], latex: Mapping[str, str] | None = None):
        if not distributions:
            raise InputError("nothing to sample: every parameter is fixed; give at least one a prior")
        self.distributions = dict(distributions)
        self.names = tuple(self.distributions)
        self.latex = {name: (latex or {}).get(name) or name for name in self.names}
        self._ppf = tuple(d.ppf for d in self.distributions.values())

    def __len__(self):
        return len(self.names)

    def transform(self, cube: np.ndarray) -> np.ndarray:
        """Physical parameters from the unit hypercube.

        Parameters
        ----------
        cube : numpy.ndarray
            (n_params,) in 0..1; not changed.

        Returns
        -------
        numpy.ndarray
            (n_params,) physical, a new array.
        """
        return np.array([ppf(u) for ppf, u in zip(self._ppf, cube.tolist())])

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw (n, n_params) physical parameter sets."""
        cube = rng.uniform(size=(n, len(self)))
        return np.stack([ppf(u) for ppf, u in zip(self._ppf, cube.T)], axis=1)

    def logpdf(self, theta) -> np.ndarray:
        """Log density of (..., n_params) physical parameter sets, per physical unit of each."""
        theta = np.asarray(theta, dtype=float)
        return sum(d.logpdf(theta[..., i]) for i, d in enumerate(self.distributions.values()))
