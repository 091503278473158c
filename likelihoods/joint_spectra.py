"""Joint likelihoods of spectra whose marginalised foregrounds have coefficients in common.

For linear foregrounds, ln L = ln N(r; F a, V) marginalised over the coefficients a of all spectra, where r are the
residuals of all channels, V is block diagonal with the noise of each spectrum, and the rows of F are those of each
spectrum's basis, with zeros in the columns of coefficients that it does not have. Where the noise is that of the
model's sky, the sky has the coefficients at their conditional mean given all data, under the noise of the data.
"""

import math
from collections.abc import Callable

import numpy as np

from lstmfit.errors import InputError
from lstmfit.likelihoods.base import in_common
from lstmfit.likelihoods.gaussian import MarginalisedTerms, choose_centre
from lstmfit.likelihoods.global_signal import GlobalSignal
from lstmfit.likelihoods.model_noise import ModelNoise


class JointSpectra:
    """Abstract base class of the likelihood of spectra with coefficients that are marginalised jointly.

    Parameters
    ----------
    members : dict of str to GlobalSignal
        Likelihoods with a marginalised foreground, by name. Their parameters of the same name are the same.
    coefficients : dict of str to tuple of str
        Names of the coefficients of each member's foreground; those of the same name are the same.

    Attributes
    ----------
    outputs, names, params
        As for every likelihood; `names` are the parameters of all members.
    members : dict of str to SharingSpectrum
        The members, which give their model, foreground and residuals.
    coefficients_of : dict of str to numpy.ndarray
        Positions of each member's coefficients in those of all.
    n_marginalised : int
        Number of different coefficients.
    """

    outputs = ("signal",)

    def __init__(self, members: dict[str, GlobalSignal], coefficients: dict[str, tuple[str, ...]]):
        self.names = tuple(dict.fromkeys(n for likelihood in members.values() for n in likelihood.names))
        self.params: dict[str, dict] = {}
        for likelihood in members.values():
            for name, given in likelihood.params.items():
                self.params[name] = in_common(self.params.get(name, given), given)
        names = tuple(dict.fromkeys(n for own in coefficients.values() for n in own))
        self.coefficients_of = {k: np.array([names.index(n) for n in own]) for k, own in coefficients.items()}
        self.n_marginalised = len(names)
        self.members = {name: SharingSpectrum(likelihood, self, name) for name, likelihood in members.items()}
        # Positions of the parameters of each member in `names`, and of its channels in those of all.
        self._parts, end = {}, 0
        for name, likelihood in members.items():
            at = np.array([self.names.index(n) for n in likelihood.names], dtype=int)
            self._parts[name] = at, slice(end, end := end + likelihood.density.n)
        self._n = end

    def __call__(self, signal: np.ndarray, values: np.ndarray) -> float:
        """Log likelihood of all spectra.

        Parameters
        ----------
        signal : numpy.ndarray
            (n_channels,) mK on the redshift grid of the signal; not modified.
        values : numpy.ndarray
            (len(names),) parameters.
        """
        raise NotImplementedError

    def with_variance_at(self, signal: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
        """Log likelihood whose noise is fixed at a signal and parameters, as `GlobalSignal.with_variance_at`.

        Returns
        -------
        callable
            (signal, values) -> ln L; the likelihood itself if its noise does not depend on them.
        """
        return self

    def quadratic_at(self, signal: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
        """As `GlobalSignal.quadratic_at`."""
        return self.with_variance_at(signal, values)

    def coefficients(self, signal, values, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """Coefficients (k,) of each member given all data: their conditional mean, or a random draw."""
        raise NotImplementedError

    def values_of(self, name: str, values: np.ndarray) -> np.ndarray:
        """Parameters of a member, of those of all (len(names),)."""
        return values[self._parts[name][0]]

    def mocked(self, arguments, rng: np.random.Generator | None, redshifts=None) -> dict:
        """Mock data of each member with common coefficients; as `GlobalSignal.mocked`.

        Returns
        -------
        dict of str to Spectrum
        """
        signal, values = arguments
        coefficients = self._drawn_from_prior(rng)
        return {
            name: member.mocked([signal, values[self._parts[name][0]]], rng, redshifts, coefficients[name])
            for name, member in self.members.items()
        }

    def _drawn_from_prior(self, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """Coefficients of each member at their prior mean, or drawn from their prior."""
        raise NotImplementedError

    def _sigmas(self, values):
        return [member.sigma_of(values[self._parts[name][0]]) for name, member in self.members.items()]

    def _residual_of_members(self, signal, values):
        """Residuals (n,) of all members in their transformed bases."""
        parts = self._parts
        return np.concatenate([m.residual(signal, values[parts[name][0]]) for name, m in self.members.items()])


class JointLinearSpectra(JointSpectra):
    """Likelihood of spectra that share coefficients of a linear foreground.

    Parameters
    ----------
    members, coefficients
        As for `JointSpectra`.

    Attributes
    ----------
    model_noise : ModelNoise or None
        Density of all residuals if a member has the noise of its model's sky.

    Raises
    ------
    InputError
        The priors of shared coefficients differ, or are correlated and not all of them are shared.
    """

    def __init__(self, members: dict[str, GlobalSignal], coefficients: dict[str, tuple[str, ...]]):
        super().__init__(members, coefficients)
        names = tuple(dict.fromkeys(n for own in coefficients.values() for n in own))
        mean, scale = _common_prior(members, coefficients, names)
        self._mean, self._scale = mean, scale
        basis, data, weight = [], [], []
        for name, likelihood in members.items():
            found, spectrum = likelihood.marginalised, likelihood.spectrum
            rows = np.zeros((len(spectrum.frequency), len(names)))
            rows[:, self.coefficients_of[name]] = found.mixed(found.basis)
            basis.append(rows)
            data.append(spectrum.temperature - (0.0 if found.offset is None else found.offset))
            weight.append(spectrum.weight)
        centre = choose_centre(np.vstack(basis), np.concatenate(data), np.concatenate(weight), mean, scale)
        whitened = np.vstack([likelihood.density.whiten(rows) for likelihood, rows in zip(members.values(), basis)])
        self._terms = MarginalisedTerms(whitened, mean, scale, centre)
        shifts = []
        for name, likelihood in members.items():
            found, own = likelihood.marginalised, likelihood.density.terms.centre
            change = found.mixed(centre[self.coefficients_of[name]]) - found.mixed(own)
            shifts.append(likelihood.density.whiten(found.basis @ change))
        # From the residuals of the members, at centres of their own, to those at the common centre.
        self._shift = np.concatenate(shifts)
        of_model = any(m.model_noise is not None for m in members.values())
        parts = [(m.density, m.model_noise) for m in members.values()]
        self.model_noise = ModelNoise.joined(parts, self._terms) if of_model else None
        self._kept = (None,) * 5

    def __call__(self, signal: np.ndarray, values: np.ndarray) -> float:
        """As `JointSpectra.__call__`."""
        r = self._residual(signal, values)
        if self.model_noise is not None:
            return self.model_noise.logpdf(r, self._sigmas(values))
        return self._loglikelihood(r, self._noise_at(values, r))

    def with_variance_at(self, signal: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
        """As `JointSpectra.with_variance_at`."""
        if self.model_noise is None:
            return self
        noise = self._noise_at(values, self._residual(signal, values))
        return lambda signal, values: self._loglikelihood(self._residual(signal, values), noise)

    def _loglikelihood(self, r, noise):
        _, inverse, norm, weighted, inverse_factor = noise
        if norm == -math.inf:
            return -math.inf
        chi2 = float(np.dot(r * inverse, r))
        return norm - 0.5 * self._terms.chi_square(chi2, r, inverse, weighted, inverse_factor)

    def _residual(self, signal, values):
        return self._residual_of_members(signal, values) - self._shift

    def _noise_at(self, values, r):
        """Everything that depends on the noise only, at parameters and a residual; see `GaussianNoise`."""
        sigmas, kept = self._sigmas(values), self._kept
        if sigmas != kept[0]:
            self._kept = kept = self._at(sigmas, [member.density for member in self.members.values()])
        variance = None if self.model_noise is None else self.model_noise.variance(r, sigmas)
        if variance is None:
            return kept
        densities = [m.density.with_extra(variance[self._parts[name][1]]) for name, m in self.members.items()]
        return self._at(sigmas, densities)

    def _at(self, sigmas, densities):
        inverse, norm = np.empty(self._n), 0.0
        for sigma, density, (_, part) in zip(sigmas, densities, self._parts.values()):
            inverse[part], one = density.noise_at(sigma)
            norm += one
        if norm == -math.inf:
            return None, inverse, norm, None, None
        weighted, inverse_factor, change = self._terms.at(inverse)
        return sigmas, inverse, norm + change, weighted, inverse_factor

    def model_variance(self, signal, values, name: str) -> np.ndarray | None:
        """Variances (n,) of a member as from `ModelNoise.variance`, with the coefficients given the data of all."""
        variance = self.model_noise.variance(self._residual(signal, values), self._sigmas(values))
        return None if variance is None else variance[self._parts[name][1]]

    def coefficients(self, signal, values, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """As `JointSpectra.coefficients`."""
        r = self._residual(signal, values)
        _, _, _, weighted, inverse_factor = self._noise_at(values, r)
        return self._by_member(self._terms.coefficients(r, weighted, inverse_factor, rng))

    def _by_member(self, independent):
        at = self.coefficients_of
        return {name: m.marginalised.mixed(independent[at[name]]) for name, m in self.members.items()}

    def _drawn_from_prior(self, rng):
        a = self._mean if rng is None else self._mean + self._scale * rng.standard_normal(self.n_marginalised)
        return self._by_member(a)


class SharingSpectrum(GlobalSignal):
    """Member of a `JointSpectra`: a `GlobalSignal` whose coefficients depend on the data of all members.

    So its `names` are its own, followed by those of the other members. Its own call is that of the member alone.

    Parameters
    ----------
    likelihood : GlobalSignal
        The member on its own.
    joint : JointSpectra
        The joint likelihood.
    name : str
        Name of the member.
    """

    def __init__(self, likelihood: GlobalSignal, joint: JointSpectra, name: str):
        self.__dict__.update(likelihood.__dict__)
        self._joint, self._name = joint, name
        self.names = (*likelihood.names, *(n for n in joint.names if n not in likelihood.names))
        self._order = np.array([self.names.index(n) for n in joint.names], dtype=int)

    def coefficients(self, signal, values, rng: np.random.Generator | None = None) -> np.ndarray:
        """As `GlobalSignal.coefficients`, given the data of all members."""
        return self._joint.coefficients(signal, np.asarray(values)[self._order], rng)[self._name]

    def _model_variance(self, signal, values):
        return self._joint.model_variance(signal, np.asarray(values)[self._order], self._name)


def _common_prior(members, coefficients, names):
    """Mean and scale (k,) of all coefficients before their mixing; those of shared ones must agree."""
    mean, scale = np.zeros(len(names)), np.zeros(len(names))
    owner: dict[str, str] = {}
    for name, likelihood in members.items():
        found, own = likelihood.marginalised, coefficients[name]
        prior = _independent_prior(found)
        for coefficient, m, s in zip(own, *prior):
            k, other = names.index(coefficient), owner.setdefault(coefficient, name)
            if other == name:
                mean[k], scale[k] = m, s
                continue
            theirs = members[other].marginalised
            if not (found.mixing is None and theirs.mixing is None):
                same = own == coefficients[other] and np.array_equal(_mixing(found), _mixing(theirs))
                if not same:
                    raise InputError(
                        f"likelihood.{other} and {name} share {coefficient}, whose prior has correlations; share all "
                        "coefficients, with the same covariance"
                    )
            if (m, s) != (mean[k], scale[k]):
                raise InputError(
                    f"likelihood.{other} and {name} share {coefficient}, but its prior is {mean[k]:g} ± {scale[k]:g} K "
                    f"and {m:g} ± {s:g} K; give both the same"
                )
    return mean, scale


def _independent_prior(component):
    mean, scale = (np.broadcast_to(x, (len(component.names),)) for x in (component.mean, component.scale))
    return mean if component.mixing is None else np.linalg.solve(component.mixing, mean), scale


def _mixing(component):
    return np.eye(len(component.names)) if component.mixing is None else component.mixing
