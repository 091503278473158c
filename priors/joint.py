"""Joint prior, which defines the sampled parameters and their order."""

from collections.abc import Mapping

import numpy as np

from lstmfit.errors import InputError
from lstmfit.priors.distributions import Distribution, OrderStatistic


class Prior:
    """Product of independent priors; sorted parameters are draws from one prior in ascending order.

    Parameters
    ----------
    distributions : mapping of str to Distribution
        Priors by name, in the order of theta.
    latex : mapping of str to str, optional
        LaTeX labels without dollar signs; by default the names.
    sorted_groups : mapping of str to sequence of str, optional
        Groups of parameters, by label, whose values ascend in the given order. Without sorting, two interchangeable
        terms of a model duplicate every peak of the posterior.

    Attributes
    ----------
    names : tuple of str
        Names in the order of theta.
    distributions, latex : dict
        As given; for a sorted parameter, the marginal prior of its rank.
    independent : dict of str to Distribution
        Prior that each parameter is drawn from before sorting.
    groups : list of list of int
        Positions in theta of the parameters of each sorted group.

    Raises
    ------
    InputError
        A sorted group has only one parameter, or different priors.

    Notes
    -----
    There may be no parameters: if everything is fixed, the evidence is the likelihood itself.
    """

    def __init__(
        self,
        distributions: Mapping[str, Distribution],
        latex: Mapping[str, str] | None = None,
        sorted_groups: Mapping[str, list[str]] | None = None,
    ):
        self.distributions = dict(distributions)
        self.names = tuple(self.distributions)
        self.latex = {name: (latex or {}).get(name) or name for name in self.names}
        self.independent = dict(self.distributions)
        self.groups = []
        for label, members in (sorted_groups or {}).items():
            kinds = {self.distributions[name] for name in members}
            if len(members) < 2 or len(kinds) > 1:
                raise InputError(
                    f"params: sorted {label!r} has {', '.join(members)}; give two or more parameters with the same "
                    "prior"
                )
            self.groups.append([self.names.index(name) for name in members])
            for rank, name in enumerate(members, 1):
                self.distributions[name] = OrderStatistic(self.independent[name], label, rank, len(members))
        self._ppf = tuple(d.ppf for d in self.independent.values())

    def __len__(self):
        return len(self.names)

    def transform(self, cube: np.ndarray) -> np.ndarray:
        """Physical parameters from the unit hypercube.

        Parameters
        ----------
        cube : numpy.ndarray
            (n_params,) or (n, n_params) in 0..1; not modified.

        Returns
        -------
        numpy.ndarray
            Same shape, physical; a new array.
        """
        if cube.ndim > 1:
            return self._transform_batch(cube)
        u = cube.tolist()
        for group in self.groups:
            sort_group(u, group)
        return np.array([ppf(x) for ppf, x in zip(self._ppf, u)])

    def _transform_batch(self, cubes):
        columns = list(cubes.T)
        for group in self.groups:
            sort_group(columns, group)
        theta = np.empty(cubes.shape)
        for i, (ppf, u) in enumerate(zip(self._ppf, columns)):
            theta[:, i] = ppf(u)
        return theta

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw n sets of physical parameters, (n, n_params)."""
        return self.transform(rng.uniform(size=(n, len(self))))

    def logpdf(self, theta) -> np.ndarray:
        """Log density (...) of physical parameters (..., n_params), per physical unit of each."""
        theta = np.asarray(theta, dtype=float)
        each = (d.logpdf(theta[..., i]) for i, d in enumerate(self.independent.values()))
        total = sum(each, np.zeros(theta.shape[:-1]))
        for group in self.groups:
            ascending = (np.diff(theta[..., group], axis=-1) >= 0).all(axis=-1)
            permutations = np.log(np.arange(1, len(group) + 1)).sum()
            total = np.where(ascending, total + permutations, -np.inf)
        return total


def sort_group(u, group):
    """Transform uniform numbers to sorted ones, in place; the last one of the group is the largest.

    The largest of n uniform numbers is distributed as u^(1/n), and the others are sorted uniform numbers below it.
    Unlike sorting, this is one-to-one, so that the sampled space is not folded.
    """
    largest = 1.0
    for n, i in zip(range(len(group), 0, -1), reversed(group)):
        largest = largest * u[i] ** (1.0 / n)
        u[i] = largest
