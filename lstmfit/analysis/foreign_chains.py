"""Find and read chains of any package that anesthetic supports."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lstmfit.analysis.autocorrelation import chain_rows, is_mcmc
from lstmfit.analysis.chains import read_samples
from lstmfit.analysis.reweight import effective_size
from lstmfit.errors import InputError, did_you_mean, listed, one_line
from lstmfit.files import AnyPath
from lstmfit.sampling.state import ROOT

LEAST = 25
"""Minimum effective sample size of a chain."""
ENDINGS = (
    *("_dead-birth.txt", "dead-birth.txt", "ev.dat"),
    *(".1.txt", "_1.txt", ".csv", "_result.json", "_equal_weights.txt", ".paramnames"),
)
"""Suffixes of chain files: PolyChord, MultiNest (new and old), Cobaya, GetDist, anesthetic, bilby, and incomplete
PolyChord runs. The first suffix found in a folder determines the format."""
WHOLE = (".csv", "_result.json")
"""Suffixes of chains that are one file, whose root is the file itself."""
BOOKKEEPING = (
    *("logL", "logP", "logL_birth", "nlive", "insertion", "chain", "rank"),
    *("minuslogpost", "minuslogprior", "chi2"),
)
"""Columns that are not parameters: those added by anesthetic's readers (logP is Cobaya's minuslogpost) and those
written by Cobaya."""
BEGINNINGS = ("loglike_", "minuslogprior_", "chi2_")
LOOKED_FOR = (
    "{0}_dead-birth.txt (PolyChord), {0}dead-birth.txt or {0}ev.dat (MultiNest), {0}.1.txt (Cobaya), {0}.txt or "
    "{0}_1.txt (GetDist), {0}.csv (anesthetic), {0}_result.json (bilby), info/results.json (UltraNest)"
)


@dataclass(frozen=True)
class Chain:
    """A chain with its label.

    Parameters
    ----------
    label : str
        Name for messages and plots.
    samples : anesthetic.Samples
        Weighted samples. ``attrs["derived"]`` contains the names that .paramnames marks as derived, if any.
    log10 : frozenset of str
        Columns that have already been converted to log10.
    """

    label: str
    samples: Any
    log10: frozenset = frozenset()


def find_root(path: AnyPath) -> Path:
    """Root of the chain files, given the root itself, one of its files, or a folder that contains one chain.

    Raises
    ------
    InputError
        There is no chain, or there are several.
    """
    # Absolute, because anesthetic does not find the folder of a bare name.
    path = Path(path).expanduser().absolute()
    if path.is_dir():
        return _root_in(path)
    if path.name.endswith(WHOLE) and path.is_file():
        return path
    if path.is_file():
        for ending in (*ENDINGS, ".ranges", ".txt"):
            if path.name.endswith(ending):
                return path.with_name(path.name[: -len(ending)])
    if path.parent.is_dir() and any(p.name.startswith(path.name) for p in path.parent.iterdir()):
        return path
    raise InputError(f"no chain at {path}; give a folder, or the common prefix of the chain files")


def _root_in(folder: Path) -> Path:
    runs = [p.parent.parent for p in (*folder.glob("info/results.json"), *folder.glob("*/info/results.json"))]
    if len(runs) == 1:
        if not (runs[0] / "results" / "points.hdf5").is_file():
            raise InputError(
                f"{runs[0]} is an UltraNest run without results/points.hdf5; run it with storage_backend='hdf5'"
            )
        return runs[0]
    roots = set(runs)
    for ending in ENDINGS:
        if roots:
            break
        found = [p for p in folder.glob(f"*{ending}") if p.name != "data.csv"]
        roots = {p if ending in WHOLE else p.with_name(p.name[: -len(ending)]) for p in found}
    if not roots:
        raise InputError(f"{folder} contains no chain of a known format; give the common prefix of the chain files")
    if len(roots) > 1 and folder / "chain" not in roots:
        names = listed(sorted(r.name for r in roots), 3)
        raise InputError(f"{one_line(folder, 120)} contains several chains; append one of {names} to the path")
    return folder / "chain" if len(roots) > 1 else roots.pop()


def read_chain(path: AnyPath) -> Chain:
    """Read a run folder, or any chain that anesthetic supports: PolyChord, MultiNest, UltraNest, GetDist, Cobaya, csv;
    or a result of bilby in JSON.

    Raises
    ------
    InputError
        There is no chain, or it is unfinished, damaged, or has an effective sample size below 25.
    """
    root = find_root(path)
    _check_own(root)
    names = _names(root)
    with warnings.catch_warnings():
        # Missing names are handled by `align`; the other warnings are about plot labels.
        warnings.simplefilter("ignore")
        try:
            samples = read_samples(root)
        except InputError:
            raise
        except Exception as error:
            # A damaged file can make anesthetic's eight readers raise anything.
            raise InputError(f"anesthetic cannot read the chain: {_reason(root, error, names)}") from None
    if all(c in BOOKKEEPING for c in _first_level(samples)):
        reason = _text_columns(root, names) or "only columns such as logL and weights"
        raise InputError(f"{root} has no parameters ({reason}); give a chain with parameters")
    _check_numbers(root, samples)
    samples = _with_whole_names(root, names, samples)
    log10 = _own_log10(root, samples)
    samples = take_log10(samples, log10)
    weights = samples.get_weights()
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise InputError(
            f"{root}: some weights are negative or not finite, or all are zero; the chain is damaged, or it is a "
            "GetDist file whose first two columns are not weight and -ln L"
        )
    _check_size(root, samples)
    return Chain(str(path), samples, frozenset(log10))


def _check_own(root: Path) -> None:
    """Check the checksums and the .paramnames of a finished run of ours."""
    from lstmfit import run_folder

    folder = root.parent
    if root.name != ROOT or not run_folder.is_run(folder):
        return
    run_folder.check_seal(folder)
    if not root.with_name(f"{ROOT}.paramnames").is_file():
        raise InputError(
            f"{folder}: {ROOT}.paramnames is missing from this run; restore it, or repeat the fit with --force"
        )


def _check_numbers(root: Path, samples: Any) -> None:
    for name, column in zip(_first_level(samples), (samples.iloc[:, i] for i in range(samples.shape[1]))):
        if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_complex_dtype(column.dtype):
            raise InputError(
                f"{root}: column {name} contains values that are not numbers; the chain is damaged, recreate it"
            )


def _check_size(root: Path, samples: Any) -> None:
    size = effective_size(samples.get_weights())
    if size < LEAST:
        raise InputError(
            f"{root} has an effective sample size of {size:.1f} ({len(samples)} rows), but at least {LEAST} is needed; "
            "continue the run"
        )


def _first_level(samples: Any) -> list:
    """Names of the columns without their labels."""
    return [c[0] if isinstance(c, tuple) else c for c in samples.columns]


def _reason(root: Path, error: Exception, names: Sequence[str]) -> str:
    """Explain why anesthetic cannot read the chain files."""
    if isinstance(error, FileNotFoundError):
        looked = LOOKED_FOR.format(one_line(root.name, 10))
        return f"looked for {looked} in {one_line(root.parent, 60)}; let the run finish"
    what = one_line(_text_columns(root, names) or error, 160) or type(error).__name__
    return f"{one_line(root, 100)} ({what}); let the run finish, or repeat it if its files are damaged"


def _names(root: Path) -> list[str] | None:
    """Lines of a chain's .paramnames; None if there is none.

    Raises
    ------
    InputError
        The file is not text.
    """
    file = root.with_name(f"{root.name}.paramnames")
    if not file.is_file():
        return None
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text; save it as UTF-8, with a name and a label per line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _text_columns(root: Path, names: Sequence[str]) -> Any:
    """Describe an unexpected number of columns in the text file of a GetDist chain; None if it is as expected."""
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
    return f"{file.name} has {n} columns, but should have weight, -ln L and {parameters}"


def without_burn_in(chains: list[Chain], fraction: float) -> list[Chain]:
    """Discard the first part of every Markov chain; nested samples and weighted points are left unchanged.

    Parameters
    ----------
    chains : sequence of Chain
        Chains as returned by `read_chain`.
    fraction : float
        Fraction of the rows of each chain, at least 0 and below 1; stored as ``attrs["burn_in"]`` of the samples.

    Raises
    ------
    InputError
        The fraction is out of bounds, none of the chains is a Markov chain, or too few rows are left.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"--burn-in is {fraction:g}, but must be a fraction of the rows, at least 0 and below 1")
    if fraction == 0:
        return list(chains)
    if not any(is_mcmc(chain.samples) for chain in chains):
        raise InputError(
            f"--burn-in: {' and '.join(chain.label for chain in chains)} are nested samples or weighted points, which "
            "have no burn-in; omit the option"
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


def _with_whole_names(root: Path, lines: list[str], samples: Any) -> Any:
    """Restore names with spaces from .paramnames, of which anesthetic keeps only the first word; record derived ones.

    Name and label are separated by a tab or at least two spaces, otherwise by the first space.
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
            f"{file} contains the name {twice.pop()!r} twice; give each parameter a unique name, with a tab before its "
            "label"
        )
    if len(names) > samples.shape[1]:
        raise InputError(
            f"{file} has {len(names)} names, but the chain has only {samples.shape[1]} columns; use the .paramnames of "
            "the same run"
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


def _own_log10(root: Path, samples: Any) -> list[str]:
    """For a run of ours, the columns with a prior in log10."""
    file = root.parent / "run.yaml"
    if not file.is_file() or root.name != "chain":
        return []
    from lstmfit import config as run_file
    from lstmfit.priors import make_distribution

    blocks = run_file.load(file).params.items()
    return [n for n, b in blocks if n in samples and b.prior is not None and make_distribution(b.prior).log]


def take_log10(samples: Any, names: Sequence[str]) -> Any:
    """Copy of the samples with the named columns converted to log10.

    Raises
    ------
    InputError
        There is no such column, or some of its values are not positive.
    """
    samples = samples.copy()
    known = parameter_names(samples)
    for name in names:
        if name not in known:
            raise InputError(f"--log10: no parameter {name!r} in the chain; {did_you_mean(name, known)}")
        x = samples[name].to_numpy()
        counted = x[samples.get_weights() > 0]
        if not (counted > 0).all():
            raise InputError(
                f"--log10 {name}: the values go down to {counted.min():g}, but must be positive; omit it if the column "
                "is already in log10"
            )
        label = str(samples.get_label(name)).strip("$")
        with np.errstate(divide="ignore", invalid="ignore"):
            samples[name] = np.log10(x)
        samples.set_label(name, f"$\\log_{{10}}\\,{label}$")
    return samples


def parameter_names(samples: Any) -> list[str]:
    """Parameter columns of a chain: without bookkeeping columns and columns that have no name."""
    names = (name for name in _first_level(samples) if isinstance(name, str))
    return [name for name in names if name not in BOOKKEEPING and not name.startswith(BEGINNINGS)]
