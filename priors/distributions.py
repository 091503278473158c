"""Prior distributions of one parameter, with the names used in Cobaya's run files.

Each provides its inverse cumulative distribution, which maps the unit cube to physical values, and its density. They
are implemented here because they are evaluated at every likelihood call, and scipy.stats takes 50 microseconds. The
tests compare them with scipy.stats.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import betaincinv, betaln, ndtr, ndtri

from lstmfit.errors import InputError, did_you_mean, listed
from lstmfit.schema import LARGEST, shown, to_number


@dataclass(frozen=True)
class Distribution:
    """Abstract base class of the prior of one parameter.

    Methods
    -------
    ppf(u)
        Physical value at cumulative probability `u`, a scalar or an array.
    logpdf(x)
        Natural logarithm of the density per physical unit; -inf outside the support.
    """

    @property
    def support(self) -> tuple[float, float]:
        """Smallest and largest value allowed by the prior."""
        return -math.inf, math.inf

    def spec(self) -> dict:
        """``prior:`` block of a run file that gives this prior; infinite limits are omitted."""
        name = next(n for n, kind in DISTRIBUTIONS.items() if kind is type(self))
        return {"dist": name} | {key: value for key, value in vars(self).items() if math.isfinite(value)}

    @property
    def log(self) -> bool:
        """Whether the natural space is log10."""
        return False


def _need_range(low, high):
    if not low < high:
        raise InputError(f"min is {low:g} and max is {high:g}, but a prior needs min < max")


@dataclass(frozen=True)
class Uniform(Distribution):
    """Flat between min and max."""

    min: float
    max: float

    def __post_init__(self):
        _need_range(self.min, self.max)

    @property
    def support(self):
        return self.min, self.max

    def ppf(self, u):
        return self.min + u * (self.max - self.min)

    def logpdf(self, x):
        x = np.asarray(x, dtype=float)
        return np.where((x >= self.min) & (x <= self.max), -math.log(self.max - self.min), -np.inf)


@dataclass(frozen=True)
class LogUniform(Distribution):
    """Flat in the logarithm between min and max, both positive."""

    min: float
    max: float

    def __post_init__(self):
        _need_range(self.min, self.max)
        if self.min <= 0:
            raise InputError(f"min is {self.min:g}, but a log-uniform prior needs min > 0")
        if not math.isfinite(self.max / self.min):
            raise InputError(
                f"min is {self.min:g} and max is {self.max:g}, but a log-uniform prior needs a finite ratio; give a "
                "narrower range"
            )

    @property
    def support(self):
        return self.min, self.max

    @property
    def log(self):
        return True

    def ppf(self, u):
        return self.min * (self.max / self.min) ** u

    def logpdf(self, x):
        x = np.asarray(x, dtype=float)
        inside = (x >= self.min) & (x <= self.max)
        return np.where(inside, -np.log(np.where(inside, x, 1.0)) - math.log(math.log(self.max / self.min)), -np.inf)


@dataclass(frozen=True)
class Normal(Distribution):
    """Gaussian with mean loc and standard deviation scale."""

    loc: float
    scale: float

    def __post_init__(self):
        if not self.scale > 0:
            raise InputError(f"scale is {self.scale:g}, but a Gaussian prior needs scale > 0")

    def ppf(self, u):
        return self.loc + self.scale * ndtri(u)

    def logpdf(self, x):
        z = (np.asarray(x, dtype=float) - self.loc) / self.scale
        return -0.5 * z * z - math.log(self.scale * math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class TruncatedNormal(Distribution):
    """Gaussian with mean loc and standard deviation scale, truncated at min and max."""

    loc: float
    scale: float
    min: float = -math.inf
    max: float = math.inf

    def __post_init__(self):
        _need_range(self.min, self.max)
        if not self.scale > 0:
            raise InputError(f"scale is {self.scale:g}, but a Gaussian prior needs scale > 0")
        if not self.mirrored_ends()[1] > 0:
            raise InputError(f"the prior lies entirely outside {self.min:g}..{self.max:g}; change loc or the limits")

    @property
    def support(self):
        return self.min, self.max

    def mirrored_ends(self):
        """Whether to use the mirror image, probability between the limits, and probability below the lower limit.

        For the upper tail the mirror image is used, because there ndtr does not round to one.
        """
        a, b = (self.min - self.loc) / self.scale, (self.max - self.loc) / self.scale
        mirror = a > 0
        low, high = (-b, -a) if mirror else (a, b)
        return mirror, ndtr(high) - ndtr(low), ndtr(low)

    def ppf(self, u):
        mirror, mass, below = self.mirrored_ends()
        z = -ndtri(below + (1.0 - u) * mass) if mirror else ndtri(below + u * mass)
        return np.clip(self.loc + self.scale * z, self.min, self.max)

    def logpdf(self, x):
        x = np.asarray(x, dtype=float)
        z = (x - self.loc) / self.scale
        inside = -0.5 * z * z - math.log(self.scale * math.sqrt(2 * math.pi)) - math.log(self.mirrored_ends()[1])
        return np.where((x >= self.min) & (x <= self.max), inside, -np.inf)


@dataclass(frozen=True)
class LogNormal(Distribution):
    """Gaussian in ln x with mean ln scale and standard deviation s, as in scipy.stats."""

    s: float
    scale: float = 1.0

    def __post_init__(self):
        for key in ("s", "scale"):
            if not getattr(self, key) > 0:
                raise InputError(f"{key} is {getattr(self, key):g}, but a log-normal prior needs {key} > 0")

    @property
    def support(self):
        return 0.0, math.inf

    @property
    def log(self):
        return True

    def ppf(self, u):
        return self.scale * np.exp(self.s * ndtri(u))

    def logpdf(self, x):
        x = np.asarray(x, dtype=float)
        log = np.log(np.where(x > 0, x, 1.0))
        z = (log - math.log(self.scale)) / self.s
        return np.where(x > 0, -0.5 * z * z - log - math.log(self.s * math.sqrt(2 * math.pi)), -np.inf)


@dataclass(frozen=True)
class ScipyDistribution(Distribution):
    """Any continuous distribution of scipy.stats, which takes about 50 microseconds per draw.

    Parameters
    ----------
    name : str
        Name in scipy.stats.
    arguments : tuple of (str, float)
        Shape parameters, ``loc`` and ``scale``; or ``min`` and ``max``, which stand for loc and loc + scale.
    """

    name: str
    arguments: tuple[tuple[str, float], ...]

    def __post_init__(self):
        given = dict(self.arguments)
        if ("min" in given) != ("max" in given) or ("min" in given and {"loc", "scale"} & set(given)):
            raise InputError(f"a {self.name} prior takes either min and max or loc and scale")
        if "min" in given:
            low, high = given.pop("min"), given.pop("max")
            _need_range(low, high)
            given |= {"loc": low, "scale": high - low}
        from scipy import stats

        frozen = getattr(stats, self.name)(**given)
        try:
            with np.errstate(all="ignore"):
                middle = float(frozen.ppf(0.5))
        except (ArithmeticError, TypeError, ValueError):
            middle = math.nan
        if not math.isfinite(middle):
            values = ", ".join(f"{key} {value:g}" for key, value in self.arguments)
            raise InputError(f"{values} are not valid for a {self.name} prior; see scipy.stats.{self.name}")
        object.__setattr__(self, "_frozen", frozen)

    @property
    def support(self):
        low, high = self._frozen.support()
        return float(low), float(high)

    def spec(self):
        return {"dist": self.name} | dict(self.arguments)

    def ppf(self, u):
        return self._frozen.ppf(u)

    def logpdf(self, x):
        return self._frozen.logpdf(x)


@dataclass(frozen=True)
class OrderStatistic(Distribution):
    """The rank-th smallest of `count` draws from one distribution: the marginal prior of a sorted parameter.

    Parameters
    ----------
    base : Distribution
        Distribution of the draws.
    group : str
        Label shared by the sorted parameters.
    rank, count : int
        Rank of the parameter, from 1 to count.
    """

    base: Distribution
    group: str
    rank: int
    count: int

    @property
    def support(self):
        return self.base.support

    @property
    def log(self):
        return self.base.log

    def spec(self):
        return self.base.spec() | {"sorted": self.group}

    def ppf(self, u):
        return self.base.ppf(betaincinv(self.rank, self.count - self.rank + 1, u))

    def logpdf(self, x):
        # Invert the ppf numerically, because a Distribution need not provide its cumulative distribution.
        u = np.linspace(0.0, 1.0, 4097)[1:-1]
        p = np.interp(x, self.base.ppf(u), u)
        log_beta = betaln(self.rank, self.count - self.rank + 1)
        tail = (self.rank - 1) * np.log(p) + (self.count - self.rank) * np.log1p(-p)
        return self.base.logpdf(x) + tail - log_beta


DISTRIBUTIONS = {
    "uniform": Uniform,
    "loguniform": LogUniform,
    "norm": Normal,
    "truncnorm": TruncatedNormal,
    "lognorm": LogNormal,
}
"""Distributions by their names in run files (``dist``), which are those of scipy.stats."""


def make_distribution(spec: dict) -> Distribution:
    """Create a prior from the ``prior:`` block of a run file.

    Parameters
    ----------
    spec : dict
        ``{min, max}`` for a uniform prior, otherwise ``{dist: NAME, ...}`` with the keys of the distribution or those
        of scipy.stats, as in Cobaya: loc and scale of a uniform prior, a and b of a loguniform or truncnorm prior. The
        key ``sorted`` is handled by `Prior`.

    Raises
    ------
    InputError
        The distribution or a key is unknown, a key is missing, a value is not a finite number, or the prior has no
        width or reaches values that are not finite.
    """
    if not isinstance(spec, dict):
        raise InputError(f"prior is {shown(spec)}; give a mapping such as {{min: 0, max: 1}}")
    spec = dict(spec)
    spec.pop("sorted", None)
    name = spec.pop("dist", "uniform")
    kind = DISTRIBUTIONS.get(name) if isinstance(name, str) else None
    if kind is None:
        shapes = _scipy_shapes(name) if isinstance(name, str) else None
        if shapes is None:
            hint = did_you_mean(name, DISTRIBUTIONS, "use a continuous distribution of scipy.stats or one of")
            raise InputError(f"unknown prior distribution {shown(name)}; {hint}")
        return _check_finite(name, _make_scipy(name, shapes, spec))
    known = {f.name: f for f in fields(kind)}
    spec = _in_own_keys(name, _numbers(name, spec, (*known, *_SCIPY_KEYS.get(name, ()))))
    missing = [key for key, f in known.items() if key not in spec and f.default is f.default_factory]
    if missing:
        raise InputError(f"a {name} prior needs {' and '.join(missing)}; got {listed(spec) if spec else 'nothing'}")
    return _check_finite(name, kind(**spec))


_SCIPY_KEYS = {"uniform": ("loc", "scale"), "loguniform": ("a", "b"), "truncnorm": ("a", "b")}
"""Alternative keys of a distribution, as in scipy.stats and Cobaya's run files."""


def _in_own_keys(name, spec):
    """Convert the keys of scipy.stats to those of the class."""
    theirs = [key for key in _SCIPY_KEYS.get(name, ()) if key in spec]
    if not theirs:
        return spec
    first, second = _SCIPY_KEYS[name]
    if len(theirs) < 2 or "min" in spec or "max" in spec:
        raise InputError(f"a {name} prior takes either min and max or {first} and {second}; got {listed(spec)}")
    a, b = spec.pop(first), spec.pop(second)
    if name == "truncnorm":
        # In scipy the limits are relative to loc, in units of scale.
        missing = [key for key in ("loc", "scale") if key not in spec]
        if missing:
            raise InputError(f"a truncnorm prior needs {' and '.join(missing)}; got {listed((first, second, *spec))}")
        return spec | {"min": spec["loc"] + a * spec["scale"], "max": spec["loc"] + b * spec["scale"]}
    return spec | {"min": a, "max": a + b if name == "uniform" else b}


def _numbers(name, spec, known) -> dict[str, float]:
    numbers = {}
    for key, value in spec.items():
        if key not in known:
            raise InputError(f"a {name} prior has no key {shown(key)}; its keys are {listed(known)}")
        try:
            numbers[key] = to_number(value)
        except ValueError as error:
            raise InputError(f"{key} of a {name} prior: {error}") from None
    return numbers


def _check_finite(name, distribution):
    """Check that a prior does not reach infinite or undefined values."""
    try:
        with np.errstate(all="ignore"):
            ends = [float(distribution.ppf(u)) for u in (1e-9, 0.5, 1.0 - 1e-9)]
    except OverflowError:
        ends = [math.inf]
    if not all(abs(value) <= LARGEST for value in ends):
        raise InputError(f"a {name} prior with these values reaches numbers that are not finite; make it narrower")
    return distribution


def _scipy_shapes(name) -> tuple[str, ...] | None:
    """Shape parameters of a continuous distribution of scipy.stats; None if there is no such distribution."""
    from scipy import stats

    kind = getattr(stats, name, None)
    if not isinstance(kind, stats.rv_continuous):
        return None
    return tuple(part.strip() for part in kind.shapes.split(",")) if kind.shapes else ()


def _make_scipy(name, shapes, spec):
    spec = _numbers(name, spec, (*shapes, "loc", "scale", "min", "max"))
    missing = [key for key in shapes if key not in spec]
    if missing:
        raise InputError(f"a {name} prior needs {' and '.join(missing)}; got {listed(spec) if spec else 'nothing'}")
    if not spec.get("scale", 1.0) > 0:
        raise InputError(f"scale is {spec['scale']:g}, but a {name} prior needs scale > 0")
    return ScipyDistribution(name, tuple(spec.items()))
