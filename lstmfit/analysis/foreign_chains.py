"""Chains of any package that anesthetic reads: where they are, what their parameters are called."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lstmfit.analysis.autocorrelation import chain_rows, is_mcmc
from lstmfit.analysis.chains import read_samples
from lstmfit.analysis.reweight import effective_size
from lstmfit.errors import InputError, did_you_mean, listed, one_line
from lstmfit.sampling.state import ROOT

LEAST = 25
"""Effective samples below which nothing can be said about a chain."""
ENDINGS = (
    *("_dead-birth.txt", "dead-birth.txt", "ev.dat"),
    *(".1.txt", "_1.txt", ".csv", "_equal_weights.txt", ".paramnames"),
)
"""What chain files end with, after the root: PolyChord, MultiNest new and old, Cobaya, GetDist, anesthetic, and what is
left of PolyChord's where others were deleted. The first that a folder has decides."""
BOOKKEEPING = (
    *("logL", "logP", "logL_birth", "nlive", "insertion", "chain", "rank"),
    *("minuslogpost", "minuslogprior", "chi2"),
)
"""Columns that are not parameters: what anesthetic's readers make up (logP is Cobaya's minuslogpost) and what Cobaya
writes."""
BEGINNINGS = ("loglike_", "minuslogprior_", "chi2_")
LOOKED_FOR = (
    "{0}_dead-birth.txt (PolyChord), {0}dead-birth.txt or {0}ev.dat (MultiNest), {0}.1.txt (Cobaya), {0}.txt or "
    "{0}_1.txt (GetDist), {0}.csv (anesthetic), info/results.json (UltraNest)"
)


@dataclass(frozen=True)
class Chain:
    """A chain and where it came from.

    Parameters
    ----------
    label : str
        For messages and pictures.
    samples : anesthetic.Samples
        Weighted samples, with ``attrs["derived"]``, the names that .paramnames marks so, where there are such.
    log10 : frozenset of str
        Columns that are log10 already, since the run's own prior says so.
    """

    label: str
    samples: Any
    log10: frozenset = frozenset()


def find_root(path) -> Path:
    """Root of the chain files that a path means: the root itself, one of its files, or a folder with one chain in it.

    Raises
    ------
    InputError
        No chain there, or several.
    """
    # Absolute, since anesthetic takes the folder of a bare name to be nowhere.
    path = Path(path).expanduser().absolute()
    if path.is_dir():
        return _root_in(path)
    if path.suffix == ".csv" and path.is_file():
        return path
    if path.is_file():
        for ending in (*ENDINGS, ".ranges", ".txt"):
            if path.name.endswith(ending):
                return path.with_name(path.name[: -len(ending)])
    if path.parent.is_dir() and any(p.name.startswith(path.name) for p in path.parent.iterdir()):
        return path
    raise InputError(f"no chain at {path}; give a folder, or the common beginning of the chain files' names")


def _root_in(folder: Path) -> Path:
    runs = [p.parent.parent for p in (*folder.glob("info/results.json"), *folder.glob("*/info/results.json"))]
    if len(runs) == 1:
        if not (runs[0] / "results" / "points.hdf5").is_file():
            raise InputError(
                f"{runs[0]} is of UltraNest, but has no results/points.hdf5; run it with storage_backend='hdf5'"
            )
        return runs[0]
    roots = set(runs)
    for ending in ENDINGS:
        if roots:
            break
        found = [p for p in folder.glob(f"*{ending}") if p.name != "data.csv"]
        roots = {p if ending == ".csv" else p.with_name(p.name[: -len(ending)]) for p in found}
    if not roots:
        raise InputError(f"{folder} has no chain of a known format; give the common start of the chain files' names")
    if len(roots) > 1 and folder / "chain" not in roots:
        names = listed(sorted(r.name for r in roots), 3)
        raise InputError(f"{one_line(folder, 120)} holds several chains; add one of {names} to the folder's name")
    return folder / "chain" if len(roots) > 1 else roots.pop()


def read_chain(path) -> Chain:
    """Read a run's folder, or any chain that anesthetic knows (PolyChord, MultiNest, UltraNest, GetDist, Cobaya, csv).

    Raises
    ------
    InputError
        No chain, one that is not finished or damaged, or one with fewer than 25 effective samples.
    """
    root = find_root(path)
    _check_own(root)
    names = _names(root)
    with warnings.catch_warnings():
        # Missing names are dealt with by `align`; the other warnings are about plotting labels.
        warnings.simplefilter("ignore")
        try:
            samples = read_samples(root)
        except InputError:
            raise
        except Exception as error:
            # Eight readers of other people's files: what they raise for a damaged one is beyond counting.
            raise InputError(f"no chain that anesthetic can read: {_reason(root, error, names)}") from None
    if all(c in BOOKKEEPING for c in _first_level(samples)):
        raise InputError(f"{root}: no parameters ({_text_columns(root, names) or 'only bookkeeping'})")
    _check_numbers(root, samples)
    samples = _with_whole_names(root, names, samples)
    log10 = _own_log10(root, samples)
    samples = take_log10(samples, log10)
    weights = samples.get_weights()
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise InputError(
            f"{root}: the weights are not finite numbers above zero; the chain is damaged, or a GetDist file whose "
            "first two columns are not weight and -ln L"
        )
    _check_size(root, samples)
    return Chain(str(path), samples, frozenset(log10))


def _check_own(root):
    """Hold a finished run of ours to its checksums; without its names its columns are not known."""
    from lstmfit import run_folder

    folder = root.parent
    if root.name != ROOT or not run_folder.is_run(folder):
        return
    run_folder.check_seal(folder)
    if not root.with_name(f"{ROOT}.paramnames").is_file():
        raise InputError(
            f"{folder}: {ROOT}.paramnames of this run is missing; put it back, or repeat the fit with --force"
        )


def _check_numbers(root, samples):
    for name, column in zip(_first_level(samples), (samples.iloc[:, i] for i in range(samples.shape[1]))):
        if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_complex_dtype(column.dtype):
            raise InputError(f"{root}: column {name} has values that are not numbers; the chain is damaged")


def _check_size(root, samples):
    size = effective_size(samples.get_weights())
    if size < LEAST:
        raise InputError(
            f"{root} has {len(samples)} rows, an effective sample size of {size:.1f}, but at least {LEAST} is needed; "
            "let it finish"
        )


def _first_level(samples):
    """Names of the columns without their labels."""
    return [c[0] if isinstance(c, tuple) else c for c in samples.columns]


def _reason(root, error, names):
    """What is wrong with chain files that anesthetic did not read, in words for their owner."""
    if isinstance(error, FileNotFoundError):
        looked = LOOKED_FOR.format(one_line(root.name, 10))
        return f"looked for {looked} in {one_line(root.parent, 60)}; a run that has not finished has none yet"
    what = one_line(_text_columns(root, names) or error, 160) or type(error).__name__
    return f"{one_line(root, 100)} ({what}); a run that has not finished has none yet, a damaged one must be made again"


def _names(root):
    """Lines of a chain's .paramnames; None where there is none.

    Raises
    ------
    InputError
        It is not text.
    """
    file = root.with_name(f"{root.name}.paramnames")
    if not file.is_file():
        return None
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not text in UTF-8; save it as UTF-8, a name and a label a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _text_columns(root, names):
    """Say so where the text file of a GetDist chain has not the columns that it should; None otherwise."""
    files = [root.with_name(root.name + ending) for ending in (".txt", "_1.txt")]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
        return None
    n_names = None if names is None else len(names)
    with file.open(encoding="utf-8", errors="replace") as lines:
        n = next((len(line.split()) for line in lines if line.strip() and not line.lstrip().startswith("#")), 0)
    if n == 2 + n_names if n_names is not None else n > 2:
        return None
    parameters = "the parameters" if n_names is None else f"the {n_names} parameters of {root.name}.paramnames"
    return f"{file.name} has {n} columns; expected are weight, -ln L and {parameters}"


def without_burn_in(chains, fraction: float) -> list[Chain]:
    """Leave out the first part of every Markov chain; nested samples and weighted points stay as they are.

    Parameters
    ----------
    chains : sequence of Chain
        As `read_chain` gives them.
    fraction : float
        Of the rows of each chain, from 0 to below 1; ``attrs["burn_in"]`` of what is returned says it.

    Raises
    ------
    InputError
        No such fraction, no Markov chain among them, or too little left.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"--burn-in is {fraction:g}; expected a fraction of the rows, from 0 to below 1")
    if fraction == 0:
        return list(chains)
    if not any(is_mcmc(chain.samples) for chain in chains):
        raise InputError(
            f"--burn-in: {' and '.join(chain.label for chain in chains)} are nested samples or weighted points, which "
            "have no burn-in; leave it out"
        )
    out = []
    for chain in chains:
        if is_mcmc(chain.samples):
            rows = np.concatenate([r[int(fraction * len(r)) :] for r in chain_rows(chain.samples)])
            samples = chain.samples.iloc[rows].copy()
            samples.attrs = {**chain.samples.attrs, "burn_in": fraction}
            _check_size(f"{chain.label} without burn-in", samples)
            chain = Chain(chain.label, samples, chain.log10)
        out.append(chain)
    return out


def _with_whole_names(root, lines, samples):
    """Give a chain the names that its .paramnames has where they hold spaces, of which anesthetic takes the first word,
    and note which are derived.

    Name and label are separated by a tab or by two spaces at least; where neither is there, by the first space.
    """
    if lines is None:
        return samples
    file = root.with_name(f"{root.name}.paramnames")
    pairs, derived = [], []
    for line in lines:
        parts = re.split(r"\t+|\s{2,}", line, maxsplit=1)
        parts = parts if len(parts) == 2 else line.split(maxsplit=1)
        # An asterisk marks a derived parameter.
        name = parts[0].replace("*", "").strip()
        pairs.append((name, f"${parts[1].strip()}$" if len(parts) == 2 else name))
        if "*" in parts[0]:
            derived.append(name)
    names = [name for name, _ in pairs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(
            f"{file} names {twice.pop()!r} twice; give each parameter a name of its own, with a tab before its label"
        )
    if len(names) > samples.shape[1]:
        raise InputError(
            f"{file} has {len(names)} names, the chain {samples.shape[1]} columns; they must be of one run"
        )
    samples = samples.copy()
    samples.attrs["derived"] = derived
    columns = list(samples.columns)
    if _first_level(samples)[: len(names)] == names:
        return samples
    labelled = isinstance(samples.columns, pd.MultiIndex)
    columns[: len(names)] = pairs if labelled else names
    samples.columns = pd.MultiIndex.from_tuples(columns, names=samples.columns.names) if labelled else columns
    return samples


def _own_log10(root, samples):
    """For a run of ours, the columns whose prior lives in log10."""
    file = root.parent / "run.yaml"
    if not file.is_file() or root.name != "chain":
        return []
    from lstmfit import config as run_file
    from lstmfit.priors import make_distribution

    blocks = run_file.load(file).params.items()
    return [n for n, b in blocks if n in samples and b.prior is not None and make_distribution(b.prior).log]


def take_log10(samples, names):
    """A copy with log10 of the named columns.

    Raises
    ------
    InputError
        No such column, or values that are not positive.
    """
    samples = samples.copy()
    known = parameter_names(samples)
    for name in names:
        if name not in known:
            raise InputError(f"--log10: no parameter {name!r} in the chain; {did_you_mean(name, known)}")
        x = samples[name].to_numpy()
        counted = x[samples.get_weights() > 0]
        if not (counted > 0).all():
            raise InputError(f"--log10 {name}: values down to {counted.min():g}; is the column in log10 already?")
        label = str(samples.get_label(name)).strip("$")
        with np.errstate(divide="ignore", invalid="ignore"):
            samples[name] = np.log10(x)
        samples.set_label(name, f"$\\log_{{10}}\\,{label}$")
    return samples


def parameter_names(samples) -> list[str]:
    """Parameter columns of a chain: no bookkeeping, no numbers in place of names."""
    names = (name for name in _first_level(samples) if isinstance(name, str))
    return [name for name in names if name not in BOOKKEEPING and not name.startswith(BEGINNINGS)]
