"""Public data sets: fetched only on request, and verified by checksums or by their content."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError, did_you_mean, listed, one_line
from lstmfit.files import sha256, write_text
from lstmfit.schema import shown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Content:
    """Expected content of a set of signals whose checksum is not known.

    Parameters
    ----------
    preset : str
        Name of its layout in ``presets.yaml``.
    n_train, n_test : int
        Numbers of signals.
    ranges : dict of str to (float, float)
        Wide bounds of each parameter; beyond them it is another set, or its columns have another order.
    """

    preset: str
    n_train: int
    n_test: int
    ranges: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Public:
    """A public data set.

    Parameters
    ----------
    what : str
        Description in one line.
    url : str
        Address of the file.
    file : str
        Name of the file.
    sha256 : tuple of str
        Valid checksums; empty if none is known.
    content : Content, optional
        Expected content, which is checked if no checksum is known.
    """

    what: str
    url: str
    file: str
    sha256: tuple[str, ...] = ()
    content: Content | None = None


PUBLIC = {
    "edges2018": Public(
        "EDGES low-band spectrum, 51 to 99 MHz (Bowman et al. 2018, Nature 555, 67)",
        "http://loco.lab.asu.edu/download/790/figure1_plotdata.csv",
        "edges2018_figure1.csv",
        # With Windows line endings, as on the server, and with Unix line endings.
        (
            "6eebf9cd0a73280c002f630406e6692d7408e59f37bec1aef3664ceaac1cb030",
            "2a9035e230d6d53126ec93316193d8499658cab042477330df4fee2e40597903",
        ),
    ),
    "21cmGEM": Public(
        "24,562 training and 1,704 test signals of 21cmGEM (Cohen et al. 2020), used by 21cmVAE and 21cmLSTM",
        "https://zenodo.org/record/5084114/files/dataset_21cmVAE.h5?download=1",
        "dataset_21cmVAE.h5",
        content=Content(
            "21cmGEM", 24562, 1704,
            {"fstar": (1e-5, 1), "Vc": (1, 300), "fX": (0, 1e4), "tau": (0, 0.5), "alpha": (0.5, 2.5),
             "nu_min": (0, 10), "Rmfp": (1, 200)},
        ),
    ),
    "ARES": Public(
        "23,896 training and 1,704 test signals of ARES, used by 21cmLSTM (Dorigo Jones et al. 2024)",
        "https://zenodo.org/record/13840725/files/dataset_ARES.h5?download=1",
        "dataset_ARES.h5",
        content=Content(
            "ARES", 23896, 1704,
            {"c_X": (1e34, 1e46), "f_esc": (0, 1.1), "T_min": (1e2, 1e7), "logN": (15, 25), "f_star": (1e-7, 10),
             "M_p": (1e6, 1e17), "gamma_lo": (-2, 5), "gamma_hi": (-10, 2)},
        ),
    ),
}  # fmt: skip
"""Public data sets by their name for `lstmfit data fetch`."""
SIGNAL_RANGE = -3000.0, 1000.0
"""Limits in mK of any model of the global signal; values beyond them are not signals in mK."""


def cache() -> Path:
    """Folder for fetched data: LSTMFIT_DATA, or else the user's cache."""
    import os

    import pooch

    return Path(os.environ.get("LSTMFIT_DATA") or pooch.os_cache("lstmfit"))


def fetch(name: str, folder=None, source=None) -> Path:
    """Fetch a public data set, or check the existing copy.

    Parameters
    ----------
    name : str
        A name in `PUBLIC`.
    folder : path, optional
        Folder for the file; by default `cache`.
    source : str or path, optional
        Address of a mirror, or a local file to copy.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError
        The name is unknown, the download failed, or the file is not the public one according to its checksum or, if no
        checksum is known, its content. In that case the log and the record of the file call it unverified.
    """
    item = _item(name)
    folder = cache() if folder is None else Path(folder).expanduser()
    target = folder / item.file
    if target.is_file() and source is None:
        _verify(name, item, target)
        return target
    source = item.url if source is None else _source(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot use {folder}: {error.strerror}; give another folder with -o") from None
    part = folder / f".{item.file}.part"
    try:
        _get(source, part)
        _verify(name, item, part)
        write_text(_record(target), json.dumps({"from": str(source), "verified": bool(item.sha256)}) + "\n")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def state(name: str) -> str:
    """State of a public set in the cache: not fetched, verified or unverified.

    Raises
    ------
    InputError
        There is no such set.
    """
    item = _item(name)
    if not (cache() / item.file).is_file():
        return "not fetched"
    return "fetched, verified by SHA-256" if item.sha256 else "fetched, not verified because no checksum is known"


def _item(name) -> Public:
    if not isinstance(name, str) or name not in PUBLIC:
        raise InputError(f"no public data set {shown(name)}; {did_you_mean(name, PUBLIC)}")
    return PUBLIC[name]


def _record(target) -> Path:
    return target.with_name(f"{target.name}.json")


def _source(source):
    """Check that a source is an address or an existing local file."""
    if not isinstance(source, (str, Path)) or not str(source) or "\0" in str(source):
        raise InputError(f"--from is {shown(source)}; give a local file, or an address with ://")
    if "://" in str(source):
        return str(source)
    path = Path(source).expanduser()
    if path.is_dir():
        raise InputError(f"--from {source} is a folder; give a file in it")
    if not path.is_file():
        raise InputError(f"no file {source}; give a local file, or an address with ://")
    return path


def _get(source, part):
    if isinstance(source, Path):
        try:
            shutil.copyfile(source, part)
        except OSError as error:
            raise InputError(f"cannot copy {source} to {part.parent}: {error.strerror}") from None
        return
    import pooch
    import requests

    try:
        pooch.retrieve(source, known_hash=None, path=part.parent, fname=part.name, progressbar=True)
    except (requests.RequestException, OSError, ValueError) as error:
        raise InputError(
            f"could not download {one_line(source, 100)} ({one_line(error, 120)}); download it in another way and add "
            "--from FILE"
        ) from None


def _verify(name, item, path):
    if item.sha256:
        found = sha256(path)
        if found not in item.sha256:
            expected = " or ".join(f"{known[:16]}..." for known in item.sha256)
            raise InputError(
                f"{item.file} is not the public {name}: its SHA-256 is {found[:16]}..., but {expected} is expected; "
                "it is damaged or another file, so fetch it again"
            )
        return
    _check_content(name, item.content, path)
    log.warning(
        "%s is not verified: no checksum is known; only its layout, sizes and ranges have been checked", item.file
    )


def _check_content(name, content, path):
    from lstmfit.datasets.signal_sets import load_signals

    other = f"{path.name.removeprefix('.').removesuffix('.part')} is not the public {name}: "
    try:
        data = load_signals(path)
    except InputError as error:
        raise InputError(f"{other}{one_line(error, 250)}") from None
    if data.record.get("set") != content.preset:
        raise InputError(f"{other}it has the layout of {data.record.get('set', 'lstmfit simulate')}; give another file")
    n_train, n_test = len(data.train), len(data.test)
    # If the file has no validation split, part of the training signals is used for it.
    if content.n_train not in (n_train, n_train + len(data.val)) or n_test != content.n_test:
        raise InputError(
            f"{other}it has {n_train + len(data.val)} training and validation signals and {n_test} test signals, but "
            f"{content.n_train} and {content.n_test} are expected; give another file"
        )
    for parameter in data.parameters:
        low, high = content.ranges[parameter.name]
        if not low <= parameter.min <= parameter.max <= high:
            raise InputError(
                f"{other}{parameter.name} runs from {parameter.min:.4g} to {parameter.max:.4g}, but should be within "
                f"{low:g} to {high:g}; the order of the columns is {listed(content.ranges)}"
            )
    for split in (data.train, data.val, data.test):
        if len(split) and not (SIGNAL_RANGE[0] <= split.signal.min() and split.signal.max() <= SIGNAL_RANGE[1]):
            raise InputError(
                f"{other}its signals run from {split.signal.min():.4g} to {split.signal.max():.4g}, so they are not in "
                "mK; give another file"
            )
    if not np.ptp(data.test.signal) > 0:
        raise InputError(f"{other}all its signals are equal; give another file")
