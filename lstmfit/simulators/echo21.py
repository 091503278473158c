"""ECHO21 as a simulator: its physics solved on the emulator's redshift grid, in a few milliseconds per signal."""

import types
import warnings
from importlib import metadata

import numpy as np

from lstmfit.echo21_package import MODEL, import_echo21
from lstmfit.errors import InputError
from lstmfit.outputs import OutputLayout
from lstmfit.parameters import Parameter, to_array
from lstmfit.simulators.protocol import History, SimulationError

PARAMETERS = (
    Parameter("fX", 1e-3, 1e2, log=True, latex=r"f_\mathrm{X}"),
    Parameter("fLy", 1e-2, 1e2, log=True, latex=r"f_\mathrm{Ly}"),
    Parameter("fesc", 1e-3, 1.0, log=True, latex=r"f_\mathrm{esc}"),
    Parameter("Tmin_vir", 10**2.5, 10**5.5, log=True, unit="K", latex=r"T_\mathrm{vir}^\mathrm{min}"),
    Parameter("tstar", 0.1, 10.0, log=True, latex=r"t_\star"),
    Parameter("sLy", 0.5, 4.0, latex=r"s_\mathrm{Ly}"),
    Parameter("wX", 0.5, 2.5, latex=r"w_\mathrm{X}"),
)

INITIAL_STATE = (0.00024266981865414086, 67.80493609381669)
"""Electron fraction and gas temperature (K) at 1+z = 60, where the dark ages end and theta begins to matter.

They do not depend on theta. They are constants here, because ECHO21's solution of the dark ages varies by 1e-4 K
between machines, which is within its tolerance but more than our tests allow.
"""


class Echo21:
    """The global signal of ECHO21 (Mittal et al. 2026, RASTI, doi 10.1093/rasti/rzag001).

    Constants, cosmology, source spectra and spin temperature use ECHO21's own code. The collapse fraction is computed
    from the same colossus tables, but for all redshifts at once, and the differential equations, which take most of
    ECHO21's time, are compiled (`lstmfit.simulators._kernel`). The signal agrees with
    `echo21.single_set_solver.cosmic_dawn_beyond` within 1e-8 mK until reionisation ends. After that (x_HI < 1e-3) it
    can differ by up to 1e-4 mK. ECHO21 itself varies as much between machines: its equation is discontinuous at
    Q = 0.999, and the step in which the integrator crosses this point depends on the last bit.

    Attributes
    ----------
    redshifts : numpy.ndarray
        5 to 50 in steps of 0.1, shape (451,).
    parameters : tuple of Parameter
        The seven parameters and their ranges.
    name, version : str
        "echo21" and the version of ECHO21.
    """

    name = "echo21"
    parameters = PARAMETERS

    def __init__(self):
        echo21 = import_echo21()
        from colossus.cosmology import cosmology
        from colossus.lss import peaks
        from echo21 import function_container as container

        from lstmfit.simulators import _kernel
        from lstmfit.simulators._radau import integrate

        self.version = metadata.version("echo21")
        self.redshifts = np.linspace(5.0, 50.0, 451)
        self.redshifts.flags.writeable = False
        self.layout = OutputLayout.of(len(self.redshifts), ("signal", "x_HI"), ("tau",))
        self._kernel, self._integrate = _kernel, integrate
        self._const = const = echo21.const

        # ECHO21 changes the current cosmology of colossus. Restore it, since this object keeps its own.
        current = cosmology.current_cosmo
        try:
            with warnings.catch_warnings():
                config = echo21.config(MODEL)
            self._config = config
            self._basic = basic = container.basic(config)
            colossus = config.my_cosmo
            # The halo mass function at ECHO21's 60 knots of 1+z, except for the lower mass limit.
            self._knots = np.linspace(1.0, const.Z_STAR, 60)
            self._growth = np.array([float(colossus.growthFactor(z)) for z in self._knots - 1.0])
            self._delta_c = np.array([float(peaks.collapseOverdensity(z=z)) for z in self._knots - 1.0])
        finally:
            cosmology.current_cosmo = current
        self._colossus = colossus
        self._rho_m = colossus.rho_m(0.0) * 1e9
        self._basic = basic

        class Intensities(container.lyman_alpha):
            """ECHO21's Lyman-alpha class with given intensities."""

            def __init__(self, config, basic, intensity):
                super().__init__(config, basic, None)
                self._intensity = intensity

            def lya_spec_inten(self, Z):
                return self._intensity(Z)

        self._lya_class = Intensities
        self._container = container

        # Fixed multiples of 1+z (and trapezium widths) at which the Lyman-alpha intensities are summed.
        ratios, widths, energies = [], [], []
        levels = [(1.0, 10.2, 32 / 27, 10)]
        levels += [
            (pn, 13.6 * (1 - 1 / n**2), (1 - 1 / (n + 1) ** 2) / (1 - 1 / n**2), 5)
            for n, pn in zip(range(4, 24), const.Pn)
        ]
        for weight, energy, end, count in levels:
            nodes = np.linspace(1.0, end, count)
            width = np.full(count, nodes[1] - nodes[0])
            width[[0, -1]] *= 0.5
            ratios.append(nodes)
            widths.append(weight * width)
            energies.append(energy * nodes)
        self._ratios = np.concatenate(ratios)
        self._widths = np.concatenate(widths)
        self._energies = np.concatenate(energies)
        self._n_continuum = levels[0][3]

        rho_crit = basic.rho_crit()
        n_h = basic.nH(1.0)
        doppler = const.nu_alpha * np.sqrt(2 * const.kB / (const.mP * const.cE**2))
        # Star formation rate density = this * H * f_coll / tstar.
        self._stars = const.fstar * config.Om_b * rho_crit
        self._fixed = {
            "hubble0": config.Ho / const.Mpc2km,
            "om_r": (1 + const.fnu) * const.aS * config.Tcmbo**4 / (const.cE**2 * rho_crit),
            "om_m": config.Om_m,
            "om_l": 1 - config.Om_m,
            "t_cmb": config.Tcmbo,
            "n_h": n_h,
            "x_he": basic.xHe(),
            "z_star": const.Z_STAR,
            "recombination": const.alpha_B * (1 + basic.xHe()),
            "clumping": 20.81,
            "clumping_slope": -1.1,
            "k_rr": const.lam_alpha**3 / (8 * np.pi),
            "lam_h": const.Lam_H,
            "alpha_scale": 1e-19 * const.Feff * const.A_rec,
            "alpha_b": const.b_rec,
            "alpha_c": const.c_rec,
            "alpha_d": const.d_rec,
            "beta_scale": (2 * np.pi * const.me * const.kB / const.hP**2) ** 1.5,
            "beta_kelvin": const.B2 / const.kB,
            "lya_kelvin": const.Ea / const.kB,
            "compton": 8 * const.sigT * const.aS / (3 * const.me * const.cE),
            "a_tau_scale": 3
            / (8 * np.pi)
            * const.A_alpha
            * n_h
            * const.lam_alpha**3
            * const.A_alpha
            / (4 * np.pi * doppler),
            "recoil": 0.02542,
            "doppler": doppler,
            "lya_heat": 8 * np.pi / 3 * const.hP / (const.kB * const.lam_alpha) * doppler,
        }
        # The optical depth is summed at ECHO21's 60 points.
        self._tau_knots = np.linspace(1.0, const.Z_STAR, 60)
        helium = 1 + np.where(self._tau_knots < 5, 2 * basic.xHe(), basic.xHe())
        weight = np.full(60, self._tau_knots[1] - self._tau_knots[0])
        weight[[0, -1]] *= 0.5
        self._tau_weights = (
            const.cE * const.sigT * n_h * helium * self._tau_knots**2 / basic.Hubble(self._tau_knots) * weight
        )

    def __reduce__(self):
        # The object contains modules and a local class, which cannot be pickled; copies are created again.
        return type(self), ()

    def __call__(self, theta) -> History:
        """Simulate the history from z = 5 to 50 in steps of 0.1.

        Parameters
        ----------
        theta : array_like or mapping
            Seven physical values in the order of `parameters`, or by name. They may be outside the ranges.

        Returns
        -------
        History
            Signal in mK, neutral fraction and optical depth.

        Raises
        ------
        InputError
            theta has the wrong names or shape, or values that are meaningless in the model.
        SimulationError
            The result is not finite.
        """
        return self.at(theta, self.redshifts)

    def at(self, theta, redshifts) -> History:
        """Simulate the history at given redshifts.

        Parameters
        ----------
        theta : array_like or mapping
            As in `__call__`.
        redshifts : array_like
            Ascending redshifts within 0..59, shape (n,).

        Returns
        -------
        History
            Solved at these redshifts, not interpolated from others.
        """
        values = self._check(theta)
        redshifts = np.array(redshifts, dtype=float)
        if redshifts.ndim != 1 or not redshifts.size or np.any(np.diff(redshifts) <= 0):
            raise InputError(f"redshifts have shape {redshifts.shape}; expected one axis, strictly ascending")
        if redshifts[0] < 0 or redshifts[-1] > self._const.Z_STAR - 1:
            raise InputError(f"redshifts span {redshifts[0]:g}..{redshifts[-1]:g}; ECHO21 needs redshifts within 0..59")
        fX, fLy, fesc, tmin, tstar, sLy, wX = values
        kernel, const = self._kernel, self._const
        varied = types.SimpleNamespace(**{**vars(self._config), "fLy": fLy, "sLy": sLy, "wX": wX})

        spline = self._collapse_fraction(tmin)
        rate = self._stars / tstar
        phi = self._container.lyman_alpha(varied, self._basic, None).phi_Ly(self._energies)
        weights = const.cE / (4 * np.pi) * rate / (1.22 * const.mP) * self._widths * phi
        n_h = self._fixed["n_h"]
        x_rays = fX * rate * const.CX_fid * self._container.heating(varied, self._basic, None, None).CX_modifier()
        low, high = const.tilda_E0, const.tilda_E1
        mean = (high ** (-wX - 2.4) - low ** (-wX - 2.4)) / (high ** (-wX - 3.4) - low ** (-wX - 3.4))
        coefficients = kernel.Coefficients(
            **self._fixed,
            ionising=fesc * const.Iion * rate / n_h,
            x_heat=2 / (3 * n_h * const.kB) * x_rays,
            x_ion=x_rays / (n_h * const.eC),
            x_energy=1 / (1e3 * mean * (wX + 3.4) / (wX + 2.4) - 13.6),
        )
        shared = (coefficients, spline, self._ratios, weights, self._n_continuum)

        one_plus_z = 1.0 + redshifts[::-1]
        start = -np.log(const.Z_STAR)
        scale_factors = -np.log(one_plus_z)
        # Merge both grids in ascending order, so that one solution covers the history and the optical depth.
        both = np.concatenate([scale_factors, -np.log(self._tau_knots[::-1])])
        order = np.argsort(both, kind="stable")
        filled = np.empty(both.size)
        filled[order] = self._integrate(kernel.IONISATION, np.zeros(1), start, 0.0, both[order], 1e-3, 1e-6, *shared)[0]
        ionised = filled[: one_plus_z.size]
        tau = float(self._tau_weights @ filled[one_plus_z.size :][::-1])
        x_e, t_k = self._integrate(
            kernel.THERMAL, np.array(INITIAL_STATE), start, 0.0, scale_factors, 1e-4, 1e-7, *shared
        )

        def intensity(z):
            return kernel.intensities_on(z, spline, const.Z_STAR, self._ratios, weights, self._n_continuum)

        lya = self._lya_class(varied, self._basic, intensity)
        hyperfine = self._container.hyfi(self._config, self._basic, lya)
        with np.errstate(all="ignore"):
            x_HI = (1 - ionised) * (1 - x_e)
            spin = hyperfine.spin_temp(Z=one_plus_z, xe=x_e, Tk=t_k)
            signal = hyperfine.twentyone_cm(Z=one_plus_z, xHI=x_HI, Ts=spin)
        if not (np.isfinite(signal).all() and np.isfinite(x_HI).all() and np.isfinite(tau)):
            named = ", ".join(f"{p.name}={v:.6g}" for p, v in zip(self.parameters, values))
            raise SimulationError(f"the signal of ECHO21 is not finite at {named}")
        return History(redshifts, signal[::-1].copy(), x_HI[::-1].copy(), tau)

    def _check(self, theta) -> np.ndarray:
        values = to_array(theta, self.parameters)
        if values.ndim != 1:
            raise InputError(f"theta has shape {values.shape}; give one parameter set at a time, shape (7,)")
        for parameter, value in zip(self.parameters, values):
            if not np.isfinite(value) or (parameter.log and value <= 0):
                kind = "a finite value above 0" if parameter.log else "a finite value"
                raise InputError(
                    f"theta: {parameter.name} is {value:g}; expected {kind} in physical units (not log10), typically "
                    f"within {parameter.min:g}..{parameter.max:g}"
                )
        return values

    def _collapse_fraction(self, tmin: float) -> np.ndarray:
        """Cubic coefficients of f_coll on 1+z = 1..60, shape (4, 59); `tmin` is a virial temperature in K."""
        from scipy.integrate import simpson
        from scipy.interpolate import CubicSpline

        h, om_m, const = self._config.h100, self._config.Om_m, self._const
        m_min = 1e8 * om_m ** (-0.5) * (10 / self._knots * 0.6 / 1.22 * tmin / 1.98e4) ** 1.5 / h
        mass = np.logspace(np.log10(m_min), 16, 200, axis=1)
        mass_h = mass * h
        radius = (3.0 * mass_h / 4.0 / np.pi / self._rho_m) ** (1.0 / 3.0)
        flat = radius.ravel()
        sigma = self._colossus.sigma(flat, 0.0).reshape(radius.shape) * self._growth[:, None]
        slope = self._colossus.sigma(flat, 0.0, derivative=True).reshape(radius.shape)
        # Sheth & Tormen 1999 as in colossus.lss.mass_function.modelSheth99.
        nu = 0.707 * (self._delta_c[:, None] / sigma) ** 2
        f = 0.3222 * np.sqrt(nu * 2.0 / np.pi) * np.exp(-0.5 * nu) * (1.0 + nu**-0.3)
        dn_dlnm = -(h**3) / 3.0 * f * self._rho_m / mass_h * slope
        norm = const.Msolar_by_Mpc3_to_kg_by_m3 / (om_m * self._basic.rho_crit())
        return np.ascontiguousarray(CubicSpline(self._knots, simpson(dn_dlnm, x=mass, axis=1) * norm).c)
