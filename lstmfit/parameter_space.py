"""The parameters of a run: sampled, fixed, computed from others, or derived."""

from dataclasses import dataclass, field

import numpy as np
from pydantic import ValidationError

from lstmfit.config import ParamBlock, RunConfig
from lstmfit.errors import InputError, did_you_mean, listed, one_line
from lstmfit.likelihoods.base import in_common
from lstmfit.parameters import Parameter, check_name, widened
from lstmfit.priors import Distribution, Prior, compile_expression, load_set, make_distribution
from lstmfit.priors.expressions import CONSTANTS, FUNCTIONS, names_in
from lstmfit.schema import LARGEST, shown


@dataclass
class ParameterSpace:
    """All parameters of a run in one vector: those of the signal, of the likelihoods, then auxiliary ones.

    Parameters
    ----------
    names : tuple of str
        All parameters in the order of the vector.
    prior : Prior
        Prior of the sampled parameters in the order of theta, beginning with those that change the signal.
    n_slow : int
        Number of sampled parameters that change the signal. Changes of the others (noise, foreground, nuisance
        parameters of a likelihood) do not require a new signal.
    fixed : dict of str to float
        Fixed parameters.
    expressions : dict of str to str
        Parameters computed from others, in the order of evaluation.
    limits : dict of str to tuple of float
        Training range of the emulator for computed parameters, outside which the likelihood is zero.
    derived : dict of str to str
        Expressions of derived parameters, which are only written to the chain.
    latex : dict of str to str
        Labels of the computed and derived parameters.
    """

    names: tuple[str, ...]
    prior: Prior
    n_slow: int
    fixed: dict[str, float]
    expressions: dict[str, str] = field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)
    latex: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        index = {name: i for i, name in enumerate(self.names)}
        self._template = np.zeros(len(self.names))
        for name, value in self.fixed.items():
            self._template[index[name]] = value
        self._sampled = np.array([index[name] for name in self.prior.names], dtype=int)
        self._computed = [
            (index[name], compile_expression(text, self.names), *self.limits.get(name, (-LARGEST, LARGEST)))
            for name, text in self.expressions.items()
        ]
        self._columns = [compile_expression(text, self.names) for text in self.derived.values()]
        self.derived_names = (*self.expressions, *self.derived)

    def fill(self, theta: np.ndarray) -> np.ndarray | None:
        """Vector of all parameters (n_all,) for sampled parameters theta (n,); a new array.

        None if a computed parameter is NaN or outside its range.
        """
        full = self._template.copy()
        full[self._sampled] = theta
        for i, function, low, high in self._computed:
            value = function(full)
            if not low <= value <= high:
                return None
            full[i] = value
        return full

    def fill_batch(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `fill` for many points.

        Parameters
        ----------
        theta : numpy.ndarray
            (n, n_params) sampled parameters.

        Returns
        -------
        full : numpy.ndarray
            (n, n_all); a new array.
        good : numpy.ndarray of bool
            (n,) whether all computed parameters are in range. Rows of `full` where they are not are incomplete.
        """
        full, good = np.tile(self._template, (len(theta), 1)), np.ones(len(theta), dtype=bool)
        full[:, self._sampled] = theta
        for i, function, low, high in self._computed:
            for j in np.flatnonzero(good):
                full[j, i] = value = function(full[j])
                good[j] = low <= value <= high
        return full, good

    def complete(self, theta: np.ndarray) -> np.ndarray:
        """As `fill`, but never None: a computed parameter may be NaN or outside its range."""
        full = self._template.copy()
        full[self._sampled] = theta
        for i, function, *_ in self._computed:
            full[i] = function(full)
        return full

    def columns(self, full: np.ndarray) -> tuple[float, ...]:
        """Values of `derived_names`."""
        return tuple(full[i] for i, *_ in self._computed) + tuple(float(f(full)) for f in self._columns)

    def blocks(self) -> dict[str, dict]:
        """The ``params:`` block of the resolved run file."""
        blocks = {name: {"value": value} for name, value in self.fixed.items()}
        for name, distribution in self.prior.distributions.items():
            blocks[name] = {"prior": distribution.spec(), "latex": self.prior.latex[name]}
        for key, texts in (("value", self.expressions), ("derived", self.derived)):
            blocks |= {name: {key: text, "latex": self.latex[name]} for name, text in texts.items()}
        order = [*self.names, *self.derived]
        return {name: blocks[name] for name in sorted(blocks, key=order.index)}


def natural_prior(parameter: Parameter) -> Distribution:
    """Uniform or log-uniform prior over the range of a parameter."""
    dist = "loguniform" if parameter.log else "uniform"
    return make_distribution({"dist": dist, "min": parameter.min, "max": parameter.max})


def natural_parameters(parameters) -> dict[str, dict]:
    """Default ``prior`` and ``latex`` of the parameters of a signal, by name."""
    return {p.name: {"prior": natural_prior(p).spec(), "latex": _label(p)} for p in parameters}


def _label(parameter: Parameter) -> str:
    latex = parameter.latex or parameter.name
    return f"{latex}\\ [\\mathrm{{{parameter.unit}}}]" if parameter.unit else latex


def make_space(config: RunConfig, signal, likelihoods: dict, shared=frozenset()) -> ParameterSpace:
    """Determine all parameters of a run.

    Parameters
    ----------
    config : RunConfig
        The run file.
    signal : Signal
        Its parameters come first; by default their prior is their range.
    likelihoods : dict of str to Likelihood
        Their parameters come next; parameters of the same name are shared.
    shared : set of str, optional
        Parameters that several spectra bring; they have no default prior if those of the spectra differ.

    Raises
    ------
    InputError
        A parameter is unknown, defined twice or without a prior, a prior exceeds the training range, or expressions are
        circular.
    """
    own = {p.name: p for p in signal.parameters}
    defaults = natural_parameters(signal.parameters)
    brought = dict.fromkeys(own, signal.name)
    for part, likelihood in likelihoods.items():
        for name in getattr(likelihood, "params", {}):
            if name in brought and name in shared:
                defaults[name] = in_common(defaults[name], likelihood.params[name])
                continue
            if name in brought:
                raise InputError(
                    f"parameter {name!r} is defined by both {brought[name]} and {part}, with different meanings; "
                    "rename one of them"
                )
            brought[name] = part
            defaults[name] = likelihood.params[name]
    used = [*own]
    for likelihood in likelihoods.values():
        asked = [*likelihood.names, *(o for o in likelihood.outputs if o not in signal.layout)]
        used += [name for name in asked if name not in used]
    blocks = _blocks(config, used)
    for name in (*used, *blocks):
        check_name(name, "params:")
        if name in blocks and name not in own and name in (*FUNCTIONS, *CONSTANTS):
            raise InputError(f"params: {name} is a function or constant in expressions; choose another name")
    texts = {name: b.value if isinstance(b.value, str) else b.derived for name, b in blocks.items()}
    in_texts = set().union(*(names_in(text) for text in texts.values() if text))
    derived = {name: b.derived for name, b in blocks.items() if b.derived is not None}
    helpers = [name for name in blocks if name not in used and name not in derived]
    for name in helpers:
        if name not in in_texts:
            raise InputError(
                f"params: unknown parameter {name!r}, which no signal, likelihood or expression uses; "
                f"{did_you_mean(name, used, 'the parameters are')}"
            )
    for name in derived:
        if name in used:
            raise InputError(
                f"params: {name} is an input of the model, not a derived parameter; give its expression as value:"
            )
    return _settle(config, own, defaults, blocks, (*used, *helpers), derived)


def _blocks(config, used) -> dict[str, ParamBlock]:
    """Entries of the parameter sets that are used here, updated with the ``params`` of the run file."""
    blocks = {}
    sets = [config.priors] if isinstance(config.priors, str) else config.priors or []
    for source in sets:
        entries = load_set(source)
        taken = {name: _validated(source, name, entry) for name, entry in entries.items()}
        taken = {name: block for name, block in taken.items() if name in used}
        if not taken:
            raise InputError(
                f"priors: {source} has none of the parameters of this run: it has {listed(entries)}, the run has "
                f"{listed(used)}; choose another parameter set"
            )
        blocks |= taken
    return blocks | config.params


def _validated(source, name, entry) -> ParamBlock:
    try:
        return ParamBlock.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in (name, *first["loc"]))
        said = first["ctx"]["error"] if first["type"] == "value_error" else f"{shown(first['input'])}: {first['msg']}"
        raise InputError(f"priors: {source}: {one_line(at, 80)}: {said}") from None


def _settle(config, own, defaults, blocks, names, derived):
    distributions, groups, latex, fixed, expressions, limits = {}, {}, {}, {}, {}, {}
    for name in names:
        block = blocks.get(name) or ParamBlock()
        default = defaults.get(name, {})
        latex[name] = block.latex or default.get("latex") or name
        if isinstance(block.value, str):
            expressions[name] = block.value
            if name in own and not config.extrapolate and config.signal is None:
                limits[name] = widened(own[name].min, own[name].max, own[name].log)
            continue
        if block.value is not None:
            if name in own:
                _check_range(config, own[name], block.value, block.value, "value")
            fixed[name] = float(block.value)
            continue
        spec = block.prior or default.get("prior")
        if spec is None:
            raise InputError(
                f"params: {name} is sampled and needs a prior, such as {name}: {{prior: {{min: 0, max: 1}}}}"
            )
        distributions[name] = make_distribution(spec)
        if spec.get("sorted") is not None:
            groups.setdefault(str(spec["sorted"]), []).append(name)
        if name in own:
            _check_range(config, own[name], *distributions[name].support, "prior")
    for name in derived:
        latex[name] = blocks[name].latex or name
    expressions = _in_order(expressions, {*distributions, *fixed}, names)
    slow = set(own)
    for name in reversed(expressions):
        if name in slow:
            slow |= names_in(expressions[name])
    # PolyChord requires the slow parameters first.
    distributions = {name: distributions[name] for name in sorted(distributions, key=lambda name: name not in slow)}
    return ParameterSpace(
        tuple(names),
        Prior(distributions, latex, groups),
        len(slow.intersection(distributions)),
        fixed,
        expressions,
        limits,
        derived,
        latex,
    )


def _in_order(expressions, known, names):
    """Sort expressions so that each comes after those that it uses."""
    waiting, ordered = dict(expressions), {}
    while waiting:
        ready = [name for name, text in waiting.items() if not names_in(text) & set(waiting)]
        if not ready:
            raise InputError(f"params: {' and '.join(waiting)} are computed from each other; give one of them a prior")
        for name in ready:
            ordered[name] = waiting.pop(name)
    for name, text in ordered.items():
        unknown = names_in(text) - known - set(ordered)
        if unknown:
            raise InputError(
                f"params: {name} is computed from {unknown.pop()!r}, which is not a parameter of this run; "
                f"give it a prior, or use {', '.join(n for n in names if n != name)}"
            )
    return ordered


def _check_range(config, parameter, low, high, what):
    # An analytic formula is valid everywhere; only emulators and simulators have a range.
    if config.extrapolate or config.signal is not None or (parameter.is_inside(low) and parameter.is_inside(high)):
        return
    given = f"is {low:.10g}" if what == "value" else f"spans {low:.10g}..{high:.10g}"
    made_for = "simulator is made for" if config.simulator is not None else "emulator was trained on"
    hint = "change it" if what == "value" else "narrow the prior (truncnorm takes min and max)"
    raise InputError(
        f"params: the {what} of {parameter.name} {given}, but the {made_for} "
        f"{parameter.min:.10g}..{parameter.max:.10g}; {hint} or set extrapolate: true"
    )
