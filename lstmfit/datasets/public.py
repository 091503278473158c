"""Public data: where they are, fetched on request only, verified."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from lstmfit.errors import InputError, did_you_mean
from lstmfit.files import sha256, write_text


@dataclass(frozen=True)
class Public:
    """A public data set.

    Parameters
    ----------
    what : str
        One line on what it holds.
    url : str
        Where it comes from.
    file : str
        Name of the file.
    sha256 : str, optional
        Checksum where we know it; else the one of the first download is recorded and held to.
    """

    what: str
    url: str
    file: str
    sha256: str | None = None


PUBLIC = {
    "edges2018": Public(
        "EDGES low-band spectrum, 51 to 99 MHz (Bowman et al. 2018, Nature 555, 67)",
        "http://loco.lab.asu.edu/download/790/figure1_plotdata.csv",
        "edges2018_figure1.csv",
    ),
    "21cmGEM": Public(
        "24,562 training and 1,704 test signals of 21cmGEM (Cohen et al. 2020) as 21cmVAE and 21cmLSTM use them",
        "https://zenodo.org/record/5084114/files/dataset_21cmVAE.h5?download=1",
        "dataset_21cmVAE.h5",
    ),
    "ARES": Public(
        "23,896 training and 1,704 test signals of ARES as 21cmLSTM uses them (Dorigo Jones et al. 2024)",
        "https://zenodo.org/record/13840725/files/dataset_ARES.h5?download=1",
        "dataset_ARES.h5",
    ),
}
"""By the name that `lstmfit data fetch` takes."""


def cache() -> Path:
    """Folder of fetched data: LSTMFIT_DATA, or the user's cache."""
    import os

    import pooch

    return Path(os.environ.get("LSTMFIT_DATA") or pooch.os_cache("lstmfit"))


def fetch(name: str, folder=None, source: str | None = None) -> Path:
    """Fetch a public data set, or check the copy that is there.

    Parameters
    ----------
    name : str
        A name in `PUBLIC`.
    folder : path, optional
        Where to put it; `cache` by default.
    source : str, optional
        Address of a mirror, or a local file to copy.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError
        Unknown name, the download failed, or the file is not the one that was fetched first.
    """
    if name not in PUBLIC:
        raise InputError(f"no public data set {name!r}; {did_you_mean(name, PUBLIC)}")
    item = PUBLIC[name]
    folder = cache() if folder is None else Path(folder)
    target, record = folder / item.file, folder / f"{item.file}.json"
    expected = item.sha256 or (json.loads(record.read_text())["sha256"] if record.is_file() else None)
    if target.is_file() and source is None:
        _verify(target, expected)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{item.file}.part"
    try:
        _get(source or item.url, part)
        _verify(part, expected)
        if expected is None:
            write_text(record, json.dumps({"sha256": sha256(part), "from": source or item.url}) + "\n")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _get(source, part):
    if "://" not in source:
        if not Path(source).is_file():
            raise InputError(f"no file {source}; give a local file or an address with ://")
        shutil.copyfile(source, part)
        return
    import pooch
    import requests

    try:
        pooch.retrieve(source, known_hash=None, path=part.parent, fname=part.name, progressbar=True)
    except (requests.RequestException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"could not download {source} ({reason}); get it another way and type --from FILE"
        ) from None


def _verify(path, expected):
    if expected is not None and sha256(path) != expected:
        raise InputError(
            f"{path.name} has SHA-256 {sha256(path)[:16]}..., expected {expected[:16]}...; "
            "it is damaged or another file"
        )
