"""Public data: only the public file itself is taken for it."""

import json
import os

import h5py
import numpy as np
import pytest
from helpers import EDGES, lstmfit

from lstmfit.datasets import public
from lstmfit.datasets.public import PUBLIC, fetch, state
from lstmfit.datasets.spectrum import read_public_spectrum
from lstmfit.errors import InputError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("LSTMFIT_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_edges_is_known_by_its_checksum(here, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("Frequency [MHz], Weight, a: Tsky [K]\n" + "".join(f"{n},1,4{n}\n" for n in range(50, 99)))
    for _ in range(2):
        with pytest.raises(InputError, match=r"is not the public edges2018: .*, but 6eebf9cd0a73280c"):
            fetch("edges2018", source=path)
    # Nothing of it is kept, neither the file nor its checksum.
    assert not list(here.iterdir())
    assert state("edges2018") == "not fetched"


@pytest.mark.skipif(not EDGES.is_file(), reason="the public EDGES file is not at hand, and tests download nothing")
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_edges_with_both_line_ends(here, tmp_path, ends):
    path = tmp_path / "e.csv"
    path.write_bytes(EDGES.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", ends.encode()))
    target = fetch("edges2018", source=str(path))
    assert target == here / "edges2018_figure1.csv"
    assert json.loads((here / "edges2018_figure1.csv.json").read_text()) == {"from": str(path), "verified": True}
    assert len(read_public_spectrum("edges2018").frequency) == 123
    assert state("edges2018") == "fetched, verified by SHA-256"
    # A record that an earlier version wrote of another file counts for nothing.
    target.write_text("50,1,1\n")
    (here / "edges2018_figure1.csv.json").write_text(json.dumps({"sha256": public.sha256(target)}))
    with pytest.raises(InputError, match="it is damaged or another file"):
        read_public_spectrum("edges2018")


def write_gem(path, rng, n_train=24562, n_test=1704, columns=None, scale=1.0, keys=("par", "signal")):
    """A file of the layout of 21cmVAE with noise in it."""
    ranges = [(1e-4, 0.5), (4.2, 100), (1e-6, 1000), (0.05, 0.17), (1.0, 1.5), (0.1, 3.0), (10, 50)]
    low, high = np.array(ranges).T
    with h5py.File(path, "w") as file:
        for split, n in (("train", n_train), ("val", 100), ("test", n_test)):
            theta = rng.uniform(low, high, (n, 7))
            file[f"{keys[0]}_{split}"] = theta if columns is None else theta[:, columns]
            file[f"{keys[1]}_{split}"] = (scale * rng.uniform(-200, 30, (n, 451))).astype(np.float32)


def test_sets_without_a_checksum_are_checked_by_content_and_called_unverified(here, tmp_path, rng, caplog):
    path = tmp_path / "set.h5"
    write_gem(path, rng)
    target = fetch("21cmGEM", source=path)
    assert "dataset_21cmVAE.h5 is not verified: no checksum is known" in caplog.text
    record = json.loads((here / "dataset_21cmVAE.h5.json").read_text())
    assert record == {"from": str(path), "verified": False}
    assert "not verified" in state("21cmGEM")
    caplog.clear()
    assert fetch("21cmGEM") == target
    assert "not verified" in caplog.text
    listed = lstmfit("data", "list", env=os.environ | {"LSTMFIT_DATA": str(here), "COLUMNS": "300"})
    assert "not verified because no checksum is known" in listed.stdout
    # Damaged afterwards.
    target.write_bytes(target.read_bytes()[:1_000_000])
    with pytest.raises(InputError, match=r"is not the public 21cmGEM: .* not a complete HDF5"):
        fetch("21cmGEM")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_train": 30}, "it has 130 training and validation signals .* but 24562 and 1704 are expected"),
        ({"n_test": 30}, "and 30 test signals"),
        ({"columns": [1, 0, 2, 3, 4, 5, 6]}, "fstar runs from 4.* should be within 1e-05 to 1; .* fstar, Vc"),
        ({"scale": 1000.0}, "its signals run from -2.*, so they are not in mK"),
        ({"keys": ("p", "s")}, "is not a set of "),
        ({"columns": [0, 1, 2]}, r"expected \(n, 7\) and"),
    ],
)
def test_other_sets_are_refused(here, tmp_path, rng, changes, message):
    write_gem(tmp_path / "set.h5", rng, **changes)
    with pytest.raises(InputError, match=f"dataset_21cmVAE.h5 is not the public 21cmGEM: .*{message}") as found:
        fetch("21cmGEM", source=tmp_path / "set.h5")
    assert len(str(found.value)) < 400
    assert not list(here.iterdir())
    with pytest.raises(InputError, match="is not the public ARES"):
        fetch("ARES", source=tmp_path / "set.h5")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "--from is 3; give a local file"),
        (["a"], r"--from is \['a'\]; give a local file"),
        ("", "--from is ''"),
        ("a\0b", "--from is "),
        (".", "is a folder; give a file in it"),
        ("nothing.csv", "no file nothing.csv"),
        ("/dev/null", "no file /dev/null"),
        ("nothing://x/y", "could not download nothing://x/y"),
    ],
)
def test_sources_that_are_none(here, source, message):
    with pytest.raises(InputError, match=message):
        fetch("edges2018", source=source)
    assert not here.exists() or not list(here.iterdir())


def test_bad_names_and_folders(here, tmp_path):
    with pytest.raises(InputError, match="no public data set 'edges'; did you mean 'edges2018'"):
        fetch("edges")
    with pytest.raises(InputError, match=r"no public data set \[1\]"):
        fetch([1])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot use .*file/x: Not a directory"):
        fetch("edges2018", tmp_path / "file" / "x", source=__file__)
    assert set(PUBLIC) == {"edges2018", "21cmGEM", "ARES"}
