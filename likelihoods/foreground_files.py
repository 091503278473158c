"""Foregrounds from files: a basis such as modes of simulated spectra, and regions of the sky seen through a beam.

Imports neither pandas nor SciPy, because run files are validated with it.
"""

import functools
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, StrictBool, model_validator

from lstmfit.datasets.channel_files import ChannelFile, read_channel_file
from lstmfit.errors import InputError
from lstmfit.likelihoods.base import read_defaults
from lstmfit.likelihoods.components import Component, ComponentBlock, WithReference, one_each
from lstmfit.schema import LARGEST, Count, NotNegative, Positive


class Basis(ComponentBlock):
    """A basis from a file, such as modes of simulated spectra (`lstmfit.datasets.modes`), linear in its coefficients.

    T = mean(nu) + sum_i a_i f_i(nu) in K, where the f_i are the columns of a matrix (n_channels, n_modes). The
    coefficients have a Gaussian prior of mean zero.

    Parameters
    ----------
    file : str
        File with the matrix ``basis`` in K, see `lstmfit.datasets.channel_files.read_channel_file`.
    mean : str, optional
        File with the mean spectrum (n_channels,) in K; by default the array ``mean`` of `file`, if it has one.
    covariance : str, optional
        File with the prior covariance (n_modes, n_modes) of the coefficients; by default the array ``covariance`` of
        `file`.
    scale : float or list of float, optional
        Standard deviations of independent coefficients, instead of a covariance.
    terms : int, optional
        Number of columns to use, from the first; by default all.
    marginalise : bool, optional
        Whether the coefficients are marginalised analytically (the default) or sampled.
    """

    FILES = ("file", "mean", "covariance")
    MEANING = ("file", "mean")

    model: Literal["basis"] = "basis"
    file: str
    mean: str | None = None
    covariance: str | None = None
    scale: Positive | list[Positive] | None = None
    terms: Annotated[Count, Field(le=1000)] | None = None
    marginalise: StrictBool | None = None

    @model_validator(mode="after")
    def _one_prior(self):
        if self.covariance is not None and self.scale is not None:
            raise ValueError("covariance and scale are both given; give one of them")
        return self

    def resolved(self, frequency):
        """As `ComponentBlock.resolved`."""
        return self.model_copy(update={"marginalise": self.marginalise is not False})

    def build(self, frequency, kept=None, load_emulator=None):
        """As `ComponentBlock.build`.

        Raises
        ------
        InputError
            A file cannot be read, its rows are not the channels of the data, it has too few or dependent columns, or
            there is no valid prior.
        """
        file = read_channel_file(self.file, "basis", ("mean", "covariance"))
        basis = file.on_channels("basis", 2, frequency, kept)
        if self.terms is not None and self.terms > basis.shape[1]:
            raise InputError(
                f"foreground: {self.terms} terms, but {file.name} has {basis.shape[1]} columns; use fewer terms"
            )
        basis = np.ascontiguousarray(basis[:, : self.terms])
        n, k = basis.shape
        if k >= n:
            raise InputError(
                f"foreground: {k} terms for {n} channels; use at least 1 and fewer terms than channels (terms: "
                f"{n - 1} takes the first columns of {file.name})"
            )
        norms = np.sqrt((basis**2).sum(axis=0))
        singular = np.linalg.svd(basis / np.where(norms > 0, norms, 1.0), compute_uv=False)
        if not (norms > 0).all() or singular[-1] < 1e-13 * singular[0]:
            raise InputError(
                f"foreground: the {k} columns of {file.name} are not independent on these {n} channels; use fewer "
                "(terms), or remove the columns that are zero or repeated"
            )
        scale, mixing = self._prior(file, k)
        marginalise = self.marginalise is not False
        if mixing is not None and not marginalise:
            raise InputError(
                "foreground: the covariance has correlations, but sampled coefficients have independent priors; omit "
                "marginalise: false, or give scale"
            )
        offset = self._mean_spectrum(file, frequency, kept)
        names = tuple(f"a{i}" for i in range(k))
        params = {
            name: {"prior": {"dist": "norm", "loc": 0.0, "scale": float(s)}, "latex": f"a_{{{i}}}"}
            for i, (name, s) in enumerate(zip(names, scale))
        }
        evaluate = functools.partial(np.matmul, basis) if offset is None else functools.partial(_affine, basis, offset)
        return Component(
            names, evaluate, params, basis, np.zeros(k), scale, marginalise=marginalise, offset=offset, mixing=mixing
        )

    def _mean_spectrum(self, file: ChannelFile, frequency, kept):
        if self.mean is not None:
            return read_channel_file(self.mean, "mean").on_channels("mean", 1, frequency, kept)
        return file.on_channels("mean", 1, frequency, kept) if "mean" in file.arrays else None

    def _prior(self, file: ChannelFile, k):
        """Standard deviations (k,) of independent coefficients, and their mixing (k, k) or None."""
        if self.scale is not None:
            return np.array(one_each("scale", self.scale, k)), None
        source = file if self.covariance is None else read_channel_file(self.covariance, "covariance")
        if "covariance" not in source.arrays:
            raise InputError(
                f"foreground: {file.name} has no array covariance for the prior of its coefficients; give scale, or "
                "covariance: FILE"
            )
        covariance = source.arrays["covariance"]
        if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or len(covariance) < k:
            raise InputError(
                f"foreground: the covariance in {source.name} has shape {covariance.shape} for {k} terms; give "
                f"({k}, {k})"
            )
        covariance = covariance[:k, :k]
        largest = np.abs(covariance).max()
        symmetric = largest <= LARGEST and np.abs(covariance - covariance.T).max() <= 1e-6 * largest
        try:
            factor = np.linalg.cholesky(0.5 * (covariance + covariance.T)) if symmetric else None
        except np.linalg.LinAlgError:
            factor = None
        if factor is None:
            raise InputError(
                f"foreground: the covariance in {source.name} is not a finite, symmetric and positive definite matrix; "
                "estimate it from more spectra than modes, or give scale"
            )
        # C = M diag(s^2) M^T with a unit lower triangular M.
        scale = factor.diagonal().copy()
        mixing = factor / scale
        return scale, mixing if np.any(mixing != np.eye(k)) else None


class Regions(WithReference):
    """Regions of the sky with a spectral index each, seen through a chromatic beam (Anstey et al. 2020).

    T(nu) = sum_i K_i(nu) (nu / nu_c)^-beta_i + T_cmb in K, where K_i is the beam-weighted temperature of region i at
    the reference frequency, without the cosmic microwave background.

    Parameters
    ----------
    file : str
        File with the matrix ``K`` (n_channels, n_regions) in K, see `lstmfit.datasets.channel_files.read_channel_file`.
    reference : float
        Reference frequency nu_c [MHz].
    T_cmb : float
        Temperature of the cosmic microwave background [K].
    marginalise : bool, optional
        Whether the spectral indices are marginalised by Laplace's method
        (`lstmfit.likelihoods.marginalised_regions`) or sampled (the default).
    """

    FILES = ("file",)
    MEANING = ("file", "reference", "T_cmb")

    model: Literal["regions"] = "regions"
    file: str
    reference: Positive = 230.0
    T_cmb: NotNegative = 2.725
    marginalise: StrictBool | None = None

    @staticmethod
    def names_of(n: int) -> tuple[str, ...]:
        """Names of the spectral indices of n regions."""
        return tuple(f"beta_{i}" for i in range(n))

    def build(self, frequency, kept=None, load_emulator=None):
        """As `ComponentBlock.build`.

        Raises
        ------
        InputError
            The file cannot be read, its rows are not the channels of the data, or a region is not seen in any of them.
        """
        from lstmfit.likelihoods._regions_kernel import sky_of_regions

        reference = self.resolved(frequency).reference
        file = read_channel_file(self.file, "K")
        weights = file.on_channels("K", 2, frequency, kept)
        unseen = ~(weights != 0).any(axis=0)
        if unseen.any():
            raise InputError(
                f"foreground: column {int(unseen.argmax())} of {file.name} is zero in all {len(frequency)} channels, "
                "so its spectral index has no effect; remove the column"
            )
        known = read_defaults("foregrounds")[self.model]["beta"]
        names = self.names_of(weights.shape[1])
        params = {name: known | {"latex": f"\\beta_{{{i}}}"} for i, name in enumerate(names)}
        log_frequency = np.log(np.asarray(frequency, dtype=float) / reference)
        weights, constant = np.ascontiguousarray(weights.T), 1000.0 * self.T_cmb
        evaluate = functools.partial(sky_of_regions, weights, log_frequency, constant)
        if not self.marginalise:
            return Component(names, evaluate, params)
        low, high = known["prior"]["min"], known["prior"]["max"]
        limits = np.full((len(names), 2), (low, high)).T
        return Component(
            names, evaluate, params, None, limits.mean(axis=0), (high - low) / np.sqrt(12.0) * np.ones(len(names)),
            marginalise=True, offset=np.full(len(log_frequency), constant), regions=(weights, log_frequency),
            limits=limits,
        )  # fmt: skip


def _affine(basis, offset, values):
    return basis @ values + offset
