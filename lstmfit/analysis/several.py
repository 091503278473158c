"""Compare any number of posteriors: their evidences, and all pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import logsumexp

from lstmfit.analysis.compare import NothingInCommon, align, compare
from lstmfit.analysis.foreign_chains import Chain, parameter_names
from lstmfit.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Comparison:
    """Chains converted to the same space, and the result of their comparison.

    Parameters
    ----------
    result : dict
        See `compare_chains`.
    chains : list of Chain
        The chains in the common space.
    names : list of str
        Parameters that all chains share; may be empty.
    """

    result: dict
    chains: list[Chain]
    names: list[str]


def compare_chains(chains: list[Chain], log10: Sequence[str] = (), seed: int = 0) -> Comparison:
    """Compare two or more chains.

    Parameters
    ----------
    chains : list of Chain
        Chains as returned by `lstmfit.analysis.foreign_chains.read_chain`.
    log10 : sequence of str
        Columns to convert to log10, in addition to those of our own runs.
    seed : int
        Seed of the estimates.

    Returns
    -------
    Comparison
        For two chains, its ``result`` is that of `lstmfit.analysis.compare.compare`. For more chains it has ``runs``, a
        list of ``label``, ``logZ``, ``logZ_err``, ``dlogZ`` relative to the largest logZ with its error,
        ``probability`` for equal prior odds (None without evidences), ``ess`` and ``n``; and ``pairs``, the comparison
        of each pair with its labels ``a`` and ``b``.

    Raises
    ------
    InputError
        There are fewer than two chains, or two that neither share a parameter nor both have an evidence; also as
        `align`.
    """
    if len(chains) < 2:
        raise InputError("compare needs two or more chains; give their run folders or their file roots")
    if len(chains) > 2:
        _check_log10(chains, log10)
    results, aligned = [], {}
    for i, j in combinations(range(len(chains)), 2):
        pair = chains[i], chains[j]
        # A name may only be in other chains; a number refers to a column without a name.
        wanted = [n for n in log10 if len(chains) == 2 or n.isdigit() or any(n in c.samples for c in pair)]
        a, b, names = _aligned(*pair, wanted, alone=len(chains) == 2)
        result = compare(a.samples, b.samples, names, seed)
        if not names:
            rest = "only the evidences are" if result["dlogZ"] is not None else "nothing is"
            result["notes"].insert(0, f"the chains share no parameter, so {rest} compared")
        results.append({"a": chains[i].label, "b": chains[j].label} | result)
        for k, chain in ((i, a), (j, b)):
            # The plot shows the version with the most columns in log10.
            if k not in aligned or len(chain.log10) > len(aligned[k][0].log10):
                aligned[k] = chain, aligned.get(k, (None, names))[1]
            aligned[k] = aligned[k][0], [name for name in aligned[k][1] if name in names]
    drawn = [aligned[k][0] for k in range(len(chains))]
    common = [name for name in aligned[0][1] if all(name in aligned[k][1] for k in aligned)]
    if len(chains) == 2:
        two = {key: value for key, value in results[0].items() if key not in ("a", "b")}
        return Comparison(two, drawn, common)
    return Comparison({"runs": _runs(chains, results), "pairs": results}, drawn, common)


def _check_log10(chains: list[Chain], log10: Sequence[str]) -> None:
    known = list(dict.fromkeys(name for chain in chains for name in parameter_names(chain.samples)))
    for name in log10:
        if name not in known and not name.isdigit():
            raise InputError(f"--log10: no parameter {name!r} in any chain; {did_you_mean(name, known)}")


def _aligned(a: Chain, b: Chain, log10: Sequence[str], alone: bool) -> tuple[Chain, Chain, list[str]]:
    """As `align`, but without names if nothing is shared and there are evidences or other pairs to compare."""
    try:
        return align(a, b, log10)
    except NothingInCommon:
        if alone and not all(_has_evidence(chain) for chain in (a, b)):
            raise
        return a, b, []


def _has_evidence(chain: Chain) -> bool:
    return hasattr(chain.samples, "logZ") or chain.samples.attrs.get("evidence") is not None


def _runs(chains: list[Chain], results: list[dict]) -> list[dict]:
    """Evidence of each chain, taken from the comparisons of the pairs."""
    found = {}
    n = len(chains)
    for (i, j), pair in zip(combinations(range(n), 2), results):
        for k, side in ((i, "a"), (j, "b")):
            keys = {"logZ": f"logZ_{side}", "logZ_err": f"logZ_{side}_err", "ess": f"ess_{side}", "n": f"n_{side}"}
            found.setdefault(k, {name: pair[key] for name, key in keys.items()})
    logz = np.array([np.nan if found[k]["logZ"] is None else found[k]["logZ"] for k in range(n)])
    known = np.isfinite(logz)
    best = int(np.nanargmax(logz)) if known.any() else None
    total = logsumexp(logz[known]) if known.sum() > 1 else None
    runs = []
    for k, chain in enumerate(chains):
        run = {"label": chain.label} | found[k]
        run |= {"dlogZ": None, "dlogZ_err": None, "probability": None}
        if known[k] and total is not None:
            run["dlogZ"] = float(logz[k] - logz[best])
            run["dlogZ_err"] = 0.0 if k == best else float(np.hypot(found[k]["logZ_err"], found[best]["logZ_err"]))
            run["probability"] = float(np.exp(logz[k] - total))
        runs.append(run)
    return runs
