"""Ultraviolet luminosity functions: galaxies per magnitude and volume, computed from the halo mass function."""

import contextlib
import itertools
import threading
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.interpolate import CubicSpline

from lstmfit.errors import InputError, listed
from lstmfit.likelihoods.base import read_options
from lstmfit.outputs import OutputLayout
from lstmfit.schema import Block, NotNegative, Number, Positive

UNIT = 1e-6
"""Unit of luminosity functions, as in the tables: 1e-6 per magnitude and comoving Mpc^3."""

EFFICIENCIES = {
    "constant": ("tstar",),
    "double_power_law": ("f_star", "M_p", "gamma_lo", "gamma_hi"),
}
"""Parameters of the star-formation efficiency, by model."""


_COLOSSUS = threading.RLock()
"""Held while colossus' current cosmology is replaced."""


class HaloMassFunction:
    """dn/dlnM of ECHO21's model (Sheth & Tormen 1999, friends of friends, its cosmology), computed with colossus.

    It also provides ECHO21's relation between halo mass, star-formation rate and magnitude.
    """

    def __init__(self):
        from lstmfit.echo21_package import MODEL, import_echo21

        echo21 = import_echo21()
        from colossus.cosmology import cosmology
        from colossus.lss import mass_function

        self._cosmology, self._mass_function = cosmology, mass_function
        self.model, self.const = MODEL, echo21.const
        with self._current():
            self.config = echo21.config(MODEL)
        self.basic = echo21.function_container.basic(self.config)

    def __reduce__(self):
        # Modules cannot be pickled, so a copy is built anew.
        return type(self), ()

    @contextlib.contextmanager
    def _current(self):
        """Use our cosmology in colossus, where it is global state, and restore the previous one afterwards."""
        with _COLOSSUS:
            before = self._cosmology.current_cosmo
            try:
                if hasattr(self, "config"):
                    self._cosmology.current_cosmo = self.config.my_cosmo
                yield
            finally:
                self._cosmology.current_cosmo = before

    def dn_dlnm(self, mass: np.ndarray, z: float) -> np.ndarray:
        """Halos per comoving Mpc^3 and ln M, for masses (any shape) in solar masses."""
        h = self.config.h100
        mass = np.asarray(mass, dtype=float)
        with self._current():
            density = self._mass_function.massFunction(
                mass.ravel() * h, z, q_in="M", q_out="dndlnM", mdef=self.model["mdef"], model=self.model["hmf"]
            )
        return h**3 * density.reshape(mass.shape)

    def mass_of(self, magnitude: np.ndarray, z: float) -> np.ndarray:
        """Halo mass (solar masses) for an absolute magnitude and t_star = 1 in ECHO21's constant-efficiency model.

        L = 8.695e20 W/Hz/(Msun/yr) f_star (Om_b / Om_m) M H(z) / t_star, with f_star = 0.1 fixed.
        """
        c = self.const
        luminosity = 4.0 * np.pi * c.d10**2 * 10.0 ** (-0.4 * (np.asarray(magnitude) + 56.1))
        rate = c.year * c.fstar * (self.config.Om_b / self.config.Om_m) * self.basic.Hubble(1.0 + z)
        return luminosity / (rate * c.UVlum_by_SFR)

    def star_formation_rate_of(self, magnitude: np.ndarray) -> np.ndarray:
        """Star-formation rate in solar masses per year for an absolute magnitude."""
        c = self.const
        return 4.0 * np.pi * c.d10**2 * 10.0 ** (-0.4 * (np.asarray(magnitude) + 56.1)) / c.UVlum_by_SFR


class ConstantEfficiency:
    """ECHO21's luminosity function: the halo mass function shifted by t_star.

    phi(M_UV) = 0.4 ln 10 dn/dlnM at the mass of that magnitude, which is proportional to t_star. The model has one
    parameter and no dust, scatter or duty cycle. It is suitable for self-consistent mocks, but a toy model for real
    data.

    Parameters
    ----------
    z, magnitude : numpy.ndarray
        (n_bins,) redshift and absolute magnitude of each bin.
    """

    LIMITS = (0.01, 100.0)
    """Tabulated range of t_star; outside it the mass function is evaluated directly."""

    def __init__(self, z: np.ndarray, magnitude: np.ndarray):
        self._halos, self._z = HaloMassFunction(), z
        self._mass = np.array([self._halos.mass_of(m, x) for m, x in zip(magnitude, z)])
        grid = np.linspace(*np.log(self.LIMITS), 921)
        self._table = CubicSpline(grid, np.log(self._direct(np.exp(grid)) / UNIT))
        self._low, self._high = grid[0], grid[-1]

    def _direct(self, tstar):
        """(n_tstar, n_bins) per magnitude and Mpc^3."""
        mass = np.multiply.outer(np.atleast_1d(tstar), self._mass)
        density = np.empty_like(mass)
        for z in np.unique(self._z):
            bins = self._z == z
            density[:, bins] = self._halos.dn_dlnm(mass[:, bins], z)
        return 0.4 * np.log(10.0) * np.maximum(density, 1e-300)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Luminosity function (n_bins,) in `UNIT` for values (t_star,)."""
        x = np.log(values[0])
        if self._low <= x <= self._high:
            return np.exp(self._table(x))
        return self._direct(values[0])[0] / UNIT


class DoublePowerLaw:
    """Luminosity function for the star-formation efficiency of ARES.

    f(M) = 2 f_star / [(M / M_p)^-gamma_lo + (M / M_p)^-gamma_hi] (Mirocha et al. 2017; ``dpl_normP`` of ARES), times
    the baryonic part of the mean accretion rate of McBride et al. (2009, Eq. 8),
    42 Msun/yr (M / 10^12 Msun)^1.127 (1 + 1.17 z) sqrt(Om (1+z)^3 + 1 - Om). ARES derives the accretion rate from the
    growth of its mass function instead, so its results differ by the ratio of the two. The halo mass function and the
    ratio of luminosity to star-formation rate are those of ECHO21 (Madau & Dickinson 2014).

    Parameters
    ----------
    z, magnitude : numpy.ndarray
        (n_bins,) redshift and absolute magnitude of each bin.
    """

    def __init__(self, z: np.ndarray, magnitude: np.ndarray):
        from lstmfit.likelihoods import _uvlf_kernel

        halos = HaloMassFunction()
        self._kernel, self._slope = _uvlf_kernel.luminosity_function, 1.127
        om = halos.config.Om_m
        growth = 42.0 * (1.0 + 1.17 * z) * np.sqrt(om * (1.0 + z) ** 3 + 1.0 - om) * halos.config.Om_b / om
        # ln f(M) + 1.127 ln(M / 10^12) for the magnitude of each bin.
        self._target = np.log(halos.star_formation_rate_of(magnitude) / growth)
        self._first, last, count = np.log(1e5 / 1e12), np.log(1e17 / 1e12), 1382
        grid = np.linspace(self._first, last, count)
        self._step = grid[1] - grid[0]
        levels, self._which = np.unique(z, return_inverse=True)
        density = np.array([np.maximum(halos.dn_dlnm(1e12 * np.exp(grid), x), 1e-300) for x in levels])
        self._table = np.ascontiguousarray(
            np.moveaxis(CubicSpline(grid, np.log(density / UNIT), axis=1).c, 0, -1)
        )  # (count - 1, n_z, 4)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Luminosity function (n_bins,) in `UNIT` for values (f_star, M_p, gamma_lo, gamma_hi)."""
        return self._kernel(
            self._target, self._which, self._table, self._first, self._step, self._slope, np.asarray(values)
        )


EMITTED = "log10_uvlf"
"""Output of a model that gives luminosity functions itself: log10 of phi per magnitude and comoving Mpc^3."""


class EmittedLuminosityFunction:
    """Luminosity function tabulated by the model, interpolated in log10.

    The interpolation is linear in redshift and magnitude, as in 21CMMC for 21cmFAST.

    Parameters
    ----------
    where : str
        Name of the likelihood, for messages.
    z, magnitude : numpy.ndarray
        (n_bins,) redshift and absolute magnitude of each bin.
    axes : mapping of str to numpy.ndarray
        ``redshift`` (n_z,) and ``M_UV`` (n_M,) of the table, ascending.

    Raises
    ------
    InputError
        A bin is outside the table.
    """

    def __init__(self, where: str, z: np.ndarray, magnitude: np.ndarray, axes):
        if list(axes) != ["redshift", "M_UV"]:
            raise InputError(f"{where}: the model's {EMITTED} has axes {listed(axes)}; redshift and M_UV are needed")
        self.weights = np.zeros((len(z), *(len(values) for values in axes.values())))
        for i, point in enumerate(zip(z, magnitude)):
            corners = [_corners(where, name, values, x) for (name, values), x in zip(axes.items(), point)]
            for (j, a), (k, b) in itertools.product(*corners):
                self.weights[i, j, k] += a * b
        self.weights = self.weights.reshape(len(z), -1)

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """Luminosity function (n_bins,) in `UNIT` for the model's log10 table, flat."""
        return 10.0 ** (self.weights @ table) / UNIT


def _corners(where, name, values, x) -> list[tuple[int, float]]:
    """The two neighbours of x on an axis and their weights."""
    if not values[0] <= x <= values[-1]:
        option = "redshifts" if name == "redshift" else "brightest and faintest"
        raise InputError(
            f"{where}: a bin has {name} {x:g}, but the model's luminosity function spans "
            f"{values[0]:g}..{values[-1]:g}; exclude it with {option}"
        )
    i = int(np.clip(np.searchsorted(values, x, side="right") - 1, 0, len(values) - 2))
    share = (x - values[i]) / (values[i + 1] - values[i])
    return [(i, 1.0 - share), (i + 1, share)]


MODELS = {"constant": ConstantEfficiency, "double_power_law": DoublePowerLaw}


class Table(Block):
    """Bins of one redshift: [M_UV, phi, error] or [M_UV, upper limit, limit].

    Parameters
    ----------
    z : float
        Effective redshift.
    bins : list
        [M_UV, phi, error] or [M_UV, upper limit, limit], with phi and error in 1e-6 per magnitude and comoving Mpc^3.
    """

    z: NotNegative
    bins: Annotated[list[tuple[Number, Number, Literal["limit"] | Number]], Field(min_length=1)]


class Options(Block):
    """Options of `UVLF`, see ``uvlf_bouwens2015.yaml``.

    Parameters
    ----------
    redshifts : list of float, optional
        Redshifts of the table to fit; all by default.
    brightest, faintest : float, optional
        Only bins between these magnitudes M_UV are fitted; null for no limit.
    error_factor : float
        Factor by which all errors are multiplied.
    efficiency : {"constant", "double_power_law"}, optional
        Star-formation efficiency from which the luminosity function is computed. By default that of the model is used
        if it has one, else ``constant``.
    values : list of float, optional
        phi of the fitted bins instead of that in the table, as a mock has it.
    table : dict of float to Table
        The luminosity functions by redshift.
    """

    redshifts: Annotated[list[Number], Field(min_length=1)] | None
    brightest: Number | None
    faintest: Number | None
    error_factor: Positive
    efficiency: Literal["constant", "double_power_law"] | None
    values: list[Number] | None
    table: Annotated[dict[Number, Table], Field(min_length=1)]


class UVLF:
    """Likelihood of a table of luminosity functions: Gaussian in linear phi, with independent bins.

    A bin with an upper limit (68 %) is treated as a measurement of zero with the limit as its error.

    Parameters
    ----------
    name : str
        Stem of the ``.yaml`` with the table and the defaults.
    options : dict
        Options of the ``.yaml``: redshifts, brightest and faintest bin, a factor for the errors, the efficiency.
    layout : OutputLayout, optional
        Outputs of the model. If they include a luminosity function and no efficiency is given, it is used.

    Attributes
    ----------
    z, magnitude, phi, err : numpy.ndarray
        (n_bins,) fitted bins; phi and err in `UNIT`.

    Raises
    ------
    InputError
        An option or a redshift is unknown, no bins remain after the cuts, or an error is not positive.
    """

    params: ClassVar[dict[str, dict]] = {}

    def __init__(self, name: str, options: dict, layout: OutputLayout | None = None):
        given = read_options(name, Options, options)
        where = f"likelihood.{name}"
        rows = _read_table(where, given.table, given.redshifts)
        emitted = given.efficiency is None and layout is not None and EMITTED in layout
        self.outputs = (EMITTED,) if emitted else ()
        efficiency = given.efficiency or "constant"
        self.names = () if emitted else EFFICIENCIES[efficiency]
        bright = -np.inf if given.brightest is None else given.brightest
        faint = np.inf if given.faintest is None else given.faintest
        rows = rows[(rows[:, 1] >= bright) & (rows[:, 1] <= faint)]
        if not len(rows):
            raise InputError(f"{where}: no bin between M_UV {bright:g} and {faint:g}; widen brightest and faintest")
        self.z, self.magnitude, self.phi, self.err = rows.T.copy()
        self.err *= given.error_factor
        if given.values is not None:
            if len(given.values) != len(rows):
                raise InputError(f"{where}: {len(given.values)} values for {len(rows)} bins; give one value per bin")
            self.phi = np.array(given.values, dtype=float)
        if emitted:
            self.predict = EmittedLuminosityFunction(where, self.z, self.magnitude, layout.axes[EMITTED])
        else:
            self.predict = MODELS[efficiency](self.z, self.magnitude)
        self._norm = -float(np.log(self.err).sum()) - 0.5 * len(rows) * np.log(2.0 * np.pi)

    def __call__(self, *arguments) -> float:
        """Log likelihood for the flattened table of the model, or for the parameters of the efficiency."""
        r = (self.predict(arguments[0]) - self.phi) / self.err
        return self._norm - 0.5 * float(np.dot(r, r))

    def mocked(self, arguments, rng: np.random.Generator | None) -> dict:
        """Options of a mock: the luminosity function of the model with the errors of the data.

        Parameters
        ----------
        arguments : sequence
            Arguments of a call at the true parameters.
        rng : numpy.random.Generator or None
            Random generator for the noise; None for a mock without noise.
        """
        phi = self.predict(arguments[0])
        if rng is not None:
            phi = phi + self.err * rng.standard_normal(len(phi))
        return {"values": [float(v) for v in phi]}


def _read_table(where, table, redshifts) -> np.ndarray:
    """(n_bins, 4) of effective redshift, magnitude, phi and error."""
    rows = []
    for z in table if redshifts is None else redshifts:
        if z not in table:
            raise InputError(f"{where}: no redshift {z:g} in the table; choose from {listed(f'{x:g}' for x in table)}")
        for magnitude, phi, err in table[z].bins:
            rows.append((table[z].z, magnitude, 0.0, phi) if err == "limit" else (table[z].z, magnitude, phi, err))
            if not rows[-1][-1] > 0:
                raise InputError(
                    f"{where}: z {z:g}, M_UV {magnitude:g} has phi {phi:g} +- {err}, but the error must be positive "
                    "(write an upper limit as [M_UV, value, limit])"
                )
    return np.array(rows, dtype=float)
