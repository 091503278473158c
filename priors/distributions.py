"""Prior distributions of one parameter, in the names of Cobaya's run files.

Each gives the inverse of its cumulative distribution, which maps PolyChord's unit cube to physical values, and its
density. They are written out because they run at every likelihood call: scipy.stats takes 50 microseconds for what
is one line here; the tests hold them to scipy.stats.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import betaincinv, betaln, ndtr, ndtri

from lstmfit.errors import InputError, did_you_mean, listed
from lstmfit.schema import LARGEST, shown, to_number


@dataclass(frozen=True)
class Distribution:
    """Abstract: one parameter's prior.

    Methods
    -------
    ppf(u)
        Physical value at cumulative probability `u`, scalar or array.
    logpdf(x)
        Natural logarithm of the density per physical unit; -inf outside the support.
    """

    @property
    def support(self) -> tuple[float, float]:
        """Smallest and largest value that the prior allows."""
        return -math.inf, math.inf

    def spec(self) -> dict:
        """The run file's ``prior:`` block that gives this prior; infinite limits are left out."""
        name = next(n for n, kind in DISTRIBUTIONS.items() if kind is type(self))
        return {"dist": name} | {key: value for key, value in vars(self).items() if math.isfinite(value)}

    @property
    def log(self) -> bool:
        """True where the natural space is log10."""
        return False


def _need_range(low, high):
    if not low < high:
        raise InputError(f"min {low:g} and max {high:g}: a prior needs a width, min < max")


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
            raise InputError(f"min is {self.min:g}: a log-uniform prior needs min > 0")
        if not math.isfinite(self.max / self.min):
            raise InputError(f"min {self.min:g} and max {self.max:g} of a log-uniform prior: the ratio is not finite")

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
    """Gaussian of mean loc and standard deviation scale."""

    loc: float
    scale: float

    def __post_init__(self):
        if not self.scale > 0:
            raise InputError(f"scale is {self.scale:g}: a Gaussian prior needs scale > 0")

    def ppf(self, u):
        return self.loc + self.scale * ndtri(u)

    def logpdf(self, x):
        z = (np.asarray(x, dtype=float) - self.loc) / self.scale
        return -0.5 * z * z - math.log(self.scale * math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class TruncatedNormal(Distribution):
    """Gaussian of mean loc and standard deviation scale, cut at min and max and normalised between them."""

    loc: float
    scale: float
    min: float = -math.inf
    max: float = math.inf

    def __post_init__(self):
        _need_range(self.min, self.max)
        if not self.scale > 0:
            raise InputError(f"scale is {self.scale:g}: a Gaussian prior needs scale > 0")
        if not self.mirrored_ends()[1] > 0:
            raise InputError(f"the prior lies wholly outside {self.min:g}..{self.max:g}; move loc or the limits")

    @property
    def support(self):
        return self.min, self.max

    def mirrored_ends(self):
        """Whether to work in the mirror, mass inside, and cumulative probability below the lower end.

        The upper tail is worked out in the mirror, where ndtr does not round to one.
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
    """Gaussian of standard deviation s in ln x about ln scale, as in scipy.stats."""

    s: float
    scale: float = 1.0

    def __post_init__(self):
        for key in ("s", "scale"):
            if not getattr(self, key) > 0:
                raise InputError(f"{key} is {getattr(self, key):g}: a log-normal prior needs {key} > 0")

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
    """Any continuous distribution of scipy.stats, by its name there; some 50 microseconds a draw.

    Parameters
    ----------
    name : str
        Name in scipy.stats.
    arguments : tuple of (str, float)
        Its shape parameters, ``loc`` and ``scale``; or ``min`` and ``max``, which mean loc and loc + scale.
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
            raise InputError(f"a {self.name} prior with {values} does not exist; see scipy.stats.{self.name}")
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
        What is drawn from.
    group : str
        Label that the sorted parameters share.
    rank, count : int
        From 1 to count.
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
        # The base's cumulative distribution is found from its inverse, which is all that a Distribution has to give.
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
"""By the name that a run file gives as ``dist``; as scipy.stats calls them, which has the others."""


def make_distribution(spec: dict) -> Distribution:
    """Prior from a run file's ``prior:`` block.

    Parameters
    ----------
    spec : dict
        ``{min, max}`` for a uniform prior, else ``{dist: NAME, ...}`` with the distribution's own keys or those of
        scipy.stats, as Cobaya takes them: loc and scale of a uniform prior, a and b of a loguniform or a truncnorm
        one. A key ``sorted`` is left to `Prior`.

    Raises
    ------
    InputError
        Unknown distribution, unknown or missing key, a value that is not a finite number, no width, or values that
        are not finite.
    """
    if not isinstance(spec, dict):
        raise InputError(f"prior is {shown(spec)}; give a mapping like {{min: 0, max: 1}}")
    spec = dict(spec)
    spec.pop("sorted", None)
    name = spec.pop("dist", "uniform")
    kind = DISTRIBUTIONS.get(name) if isinstance(name, str) else None
    if kind is None:
        shapes = _scipy_shapes(name) if isinstance(name, str) else None
        if shapes is None:
            hint = did_you_mean(name, DISTRIBUTIONS, "besides the continuous ones of scipy.stats known are")
            raise InputError(f"prior distribution {shown(name)} is unknown; {hint}")
        return _check_finite(name, _make_scipy(name, shapes, spec))
    known = {f.name: f for f in fields(kind)}
    spec = _in_own_keys(name, _numbers(name, spec, (*known, *_SCIPY_KEYS.get(name, ()))))
    missing = [key for key, f in known.items() if key not in spec and f.default is f.default_factory]
    if missing:
        raise InputError(f"a {name} prior needs {' and '.join(missing)}; got {listed(spec) if spec else 'nothing'}")
    return _check_finite(name, kind(**spec))


_SCIPY_KEYS = {"uniform": ("loc", "scale"), "loguniform": ("a", "b"), "truncnorm": ("a", "b")}
"""Keys of scipy.stats for the same distribution, which Cobaya's run files have."""


def _in_own_keys(name, spec):
    """The keys of scipy.stats in those of the class."""
    theirs = [key for key in _SCIPY_KEYS.get(name, ()) if key in spec]
    if not theirs:
        return spec
    first, second = _SCIPY_KEYS[name]
    if len(theirs) < 2 or "min" in spec or "max" in spec:
        raise InputError(f"a {name} prior takes either min and max or {first} and {second}; got {listed(spec)}")
    a, b = spec.pop(first), spec.pop(second)
    if name == "truncnorm":
        # scipy counts its ends from loc in units of scale.
        missing = [key for key in ("loc", "scale") if key not in spec]
        if missing:
            raise InputError(f"a truncnorm prior needs {' and '.join(missing)}; got {listed((first, second, *spec))}")
        return spec | {"min": spec["loc"] + a * spec["scale"], "max": spec["loc"] + b * spec["scale"]}
    return spec | {"min": a, "max": a + b if name == "uniform" else b}


def _numbers(name, spec, known) -> dict[str, float]:
    numbers = {}
    for key, value in spec.items():
        if key not in known:
            raise InputError(f"a {name} prior has no {shown(key)}; its keys are {listed(known)}")
        try:
            numbers[key] = to_number(value)
        except ValueError as error:
            raise InputError(f"{key} of a {name} prior: {error}") from None
    return numbers


def _check_finite(name, distribution):
    """Refuse a prior that reaches infinite or undefined values."""
    try:
        with np.errstate(all="ignore"):
            ends = [float(distribution.ppf(u)) for u in (1e-9, 0.5, 1.0 - 1e-9)]
    except OverflowError:
        ends = [math.inf]
    if not all(abs(value) <= LARGEST for value in ends):
        raise InputError(f"a {name} prior with these numbers reaches values that are not finite; narrow it")
    return distribution


def _scipy_shapes(name) -> tuple[str, ...] | None:
    """Names of the shape parameters of a continuous distribution of scipy.stats; None where there is none."""
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
        raise InputError(f"scale is {spec['scale']:g}: a {name} prior needs scale > 0")
    return ScipyDistribution(name, tuple(spec.items()))
