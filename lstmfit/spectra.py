"""Spectra of a run: which likelihood fits which spectrum, and what its parameters are called.

A single spectrum calls its parameters by their plain names (``sigma``). Those of several spectra get the name of the
spectrum (``sigma_lst1``), unless they are shared: then they are one parameter with the plain name. Coefficients of a
marginalised foreground that are shared are marginalised jointly.
"""

from dataclasses import dataclass

from lstmfit.config import UNNAMED, RunConfig
from lstmfit.errors import InputError, did_you_mean, listed, naming
from lstmfit.likelihoods.base import class_of, find_likelihood
from lstmfit.likelihoods.joint_spectra import JointLinearSpectra, JointSpectra


@dataclass(frozen=True)
class Use:
    """Use of a spectrum by a likelihood.

    Parameters
    ----------
    data : str
        Name of the spectrum.
    label : str or None
        What is appended to the names of parameters: the name of the spectrum, or of the likelihood if several use the
        spectrum; None if there is only one likelihood of a spectrum.
    shared : tuple of str
        Parameters that are shared with other spectra.
    """

    data: str
    label: str | None
    shared: tuple[str, ...]


def find_uses(config: RunConfig) -> dict[str, Use]:
    """Likelihoods of spectra by name, with the spectra that they use.

    A likelihood of a spectrum is one whose class has a method ``from_options``.

    Raises
    ------
    InputError
        A likelihood uses a spectrum that does not exist, no likelihood uses a spectrum, or a single likelihood shares
        parameters.
    """
    found = {}
    for name, options in config.likelihood.items():
        if hasattr(find_likelihood(class_of(name, options)), "from_options"):
            given = options if isinstance(options, dict) else options.model_dump(include={"data", "shared"})
            found[name] = _data_of(name, given.get("data"), config.data), tuple(given.get("shared") or ())
    used = [data for data, _ in found.values()]
    idle = [name for name in config.data if name not in used]
    if idle:
        raise InputError(
            f"{'.'.join(config.data_places[idle[0]])}: no likelihood uses this spectrum; add one, such as "
            f"{idle[0]}: {{{'' if idle[0] == UNNAMED else 'class: global_signal, '}noise: ...}}, or remove the data"
        )
    for name, (_, shared) in found.items():
        if shared and len(found) == 1:
            raise InputError(
                f"likelihood.{name}: shared is {list(shared)}, but there is no other spectrum to share with; remove it"
            )
    several = len(found) > 1
    return {
        name: Use(data, (data if used.count(data) == 1 else name) if several else None, shared)
        for name, (data, shared) in found.items()
    }


def _data_of(name, given, data) -> str:
    wanted = given if given is not None else name if name in data else UNNAMED
    if wanted in data:
        return wanted
    if not data:
        raise InputError(f"likelihood.{name} needs a spectrum, but data is missing; add data, or remove the likelihood")
    what = f"data is {given!r}" if given is not None else "data is not given"
    hint = did_you_mean(str(given), data, "the spectra are") if given is not None else f"choose one of {listed(data)}"
    raise InputError(f"likelihood.{name}: {what}, which is not the name of a spectrum; {hint}")


def name_parameters(likelihoods: dict, uses: dict[str, Use]) -> dict[str, dict[str, str]]:
    """Names in the run of the parameters that likelihoods of spectra bring, including marginalised coefficients.

    A parameter that only one spectrum lists as shared is shared by all that have it, otherwise by those that list it.

    Parameters
    ----------
    likelihoods : dict of str to GlobalSignal
        The likelihoods by name.
    uses : dict of str to Use
        Result of `find_uses`.

    Returns
    -------
    dict of str to dict of str to str
        For each likelihood, the names in the run by the names in the likelihood.

    Raises
    ------
    InputError
        A shared parameter is unknown, no other spectrum has it, or it has different meanings.
    """
    own = {name: _own_names(likelihoods[name]) for name in uses}
    listing: dict[str, list[str]] = {}
    for name, use in uses.items():
        for shared in use.shared:
            if shared not in own[name]:
                hint = did_you_mean(shared, own[name], "its parameters are")
                raise InputError(f"likelihood.{name}: shared: unknown parameter {shared!r}; {hint}")
            listing.setdefault(shared, []).append(name)
    for shared, names in listing.items():
        if len(names) == 1:
            listing[shared] = [name for name in uses if shared in own[name]]
            if len(listing[shared]) == 1:
                raise InputError(
                    f"likelihood.{names[0]}: shared: no other spectrum has a parameter {shared!r}; remove it, or give "
                    "another spectrum the same model"
                )
        _check_meaning(shared, {name: likelihoods[name] for name in listing[shared]})
    return {
        name: {
            n: n if use.label is None or name in listing.get(n, ()) else f"{n}_{use.label}" for n in own[name]
        }
        for name, use in uses.items()
    }


def _own_names(likelihood) -> tuple[str, ...]:
    return (*likelihood.params, *_coefficients(likelihood))


def _coefficients(likelihood) -> tuple[str, ...]:
    marginalised = getattr(likelihood, "marginalised", None)
    return () if marginalised is None else marginalised.names


def _check_meaning(shared, likelihoods: dict) -> None:
    """Check that a shared parameter is the same quantity in all likelihoods."""
    (first, one), *others = likelihoods.items()
    for name, other in others:
        if (shared in _coefficients(one)) != (shared in _coefficients(other)):
            raise InputError(
                f"likelihood.{first} and {name} share {shared}, but only one of them marginalises it; set marginalise "
                "to the same value"
            )
        a, b = (getattr(likelihood, "meanings", {}).get(shared, "noise") for likelihood in (one, other))
        if a != b:
            raise InputError(
                f"likelihood.{first} and {name} share {shared}, but it has different meanings: {a} and {b}; give both "
                "the same model and reference"
            )


def rename(likelihood, names: dict[str, str], label: str | None) -> None:
    """Give the parameters of a likelihood their names in the run.

    Parameters
    ----------
    likelihood : GlobalSignal
        Likelihood whose ``names`` and ``params`` are changed.
    names : dict of str to str
        Result of `name_parameters` for it.
    label : str or None
        Name that is added to the labels of parameters that are not shared.
    """
    likelihood.names = tuple(names.get(name, name) for name in likelihood.names)
    likelihood.params = {
        names[name]: given if names[name] == name else given | {"latex": subscripted(given.get("latex", name), label)}
        for name, given in likelihood.params.items()
    }


def subscripted(latex: str, label: str) -> str:
    r"""Label of a parameter with a further subscript, before its unit.

    Examples
    --------
    >>> print(subscripted(r"\sigma\ [\mathrm{mK}]", "lst1"))
    {\sigma}_{\mathrm{lst1}}\ [\mathrm{mK}]
    """
    symbol, space, unit = latex.partition(r"\ [")
    return f"{{{symbol}}}_{{\\mathrm{{{label.replace('_', chr(92) + '_')}}}}}{space}{unit}"


def join(likelihoods: dict, names: dict[str, dict[str, str]]) -> dict:
    """Replace likelihoods that share marginalised coefficients by joint ones.

    Parameters
    ----------
    likelihoods : dict of str to Likelihood
        All likelihoods by name.
    names : dict of str to dict of str to str
        Result of `name_parameters`.

    Returns
    -------
    dict of str to Likelihood
        The same with joint ones, named after their members, in the place of their first members.
    """
    columns = {name: tuple(known[n] for n in _coefficients(likelihoods[name])) for name, known in names.items()}
    groups: list[set[str]] = []
    for name, coefficients in columns.items():
        tied = [g for g in groups if any(not set(coefficients).isdisjoint(columns[member]) for member in g)]
        groups = [g for g in groups if g not in tied] + [set().union({name}, *tied)]
    found: dict = {}
    for name, likelihood in likelihoods.items():
        group = next((g for g in groups if name in g), {name})
        if len(group) == 1:
            found[name] = likelihood
            if _has_regions(likelihood):
                with naming(f"likelihood.{name}", "likelihood.global_signal"):
                    # They are prepared, and refused if they must be, now instead of in the first call.
                    _ = likelihood.density.regions
        elif name == next(n for n in likelihoods if n in group):
            members = {n: likelihoods[n] for n in likelihoods if n in group}
            found["_".join(members)] = _joined(members, {n: columns[n] for n in members})
    return found


def _has_regions(likelihood) -> bool:
    """Whether a likelihood marginalises spectral indices of regions."""
    marginalised = getattr(likelihood, "marginalised", None)
    return marginalised is not None and marginalised.regions is not None


def _joined(members, coefficients) -> JointSpectra:
    (first, likelihood), *_ = members.items()
    if not _has_regions(likelihood):
        return JointLinearSpectra(members, coefficients)
    # Its compiled functions take time to load.
    from lstmfit.likelihoods.joint_regions import JointRegions

    with naming(f"likelihood.{first}", "likelihood.global_signal"):
        return JointRegions(members, coefficients)
