"""Whatever a user hands in is either taken or refused in one line: run files, tables, HDF5 files, run folders.

LSTMFIT_FUZZ sets the number of examples of each test: 200 in CI, 2,000 in the slow suite; more by hand.
"""

import contextlib
import copy
import os
import shutil
import string
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from helpers import THETA, small_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstmfit import driver
from lstmfit.analysis.chains import read_run
from lstmfit.analysis.foreign_chains import read_chain
from lstmfit.analysis.report import write_report
from lstmfit.checks import check_run
from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.modes import make_modes
from lstmfit.datasets.signal_sets import load_signals
from lstmfit.datasets.spectrum import read_spectrum
from lstmfit.emulator.emulator import Emulator
from lstmfit.errors import InputError
from lstmfit.likelihoods.foreground_files import Basis, Regions

N = int(os.environ.get("LSTMFIT_FUZZ", "200"))
FUZZ = settings(
    max_examples=N,
    deadline=None,
    print_blob=True,
    derandomize="LSTMFIT_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
FEWER = settings(FUZZ, max_examples=max(N // 4, min(N, 50)))
"""Where an example takes a quarter of a second."""


@contextlib.contextmanager
def only_input_errors():
    """Anything but an InputError of one line is a traceback that a user would see."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except InputError as error:
            text = str(error)
            assert "\n" not in text
            assert 0 < len(text) < 400
            assert text.isprintable()


NASTY = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            False,
            "",
            " ",
            "x",
            "free",
            "1e3",
            "nan",
            ".inf",
            "25d",
            "0d",
            "1e-3",
            "-fX",
            "min(fX)",
            "fX/0",
            "~nouser/x",
            "/proc/self/mem",
            "a\0b",
            "x" * 300,
            "échelle",
            "[bold]",
            "{fX}",
            "..",
            ".",
            "/",
            "echo21",
            "os:system",
            "a.b.c",
            0,
            -1,
            1,
            2**31,
            2**32 + 1,
            2**63,
            2**64,
            10**400,
            -(10**400),
            1e200,
            1e308,
            5e-324,
            float("nan"),
            float("inf"),
            -float("inf"),
            -0.0,
            [],
            [1],
            [1, 2],
            [None],
            [[1]],
            {},
            {"a": 1},
            {"min": 1},
            {"prior": {}},
            {"value": "fX"},
            {"value": "1" * 500},
            {"value": "(" * 300},
            {"derived": "fX**fX**fX"},
            {"prior": {"min": 1, "max": 0}},
            {"prior": {"dist": "norm", "loc": 0, "scale": 0}},
            {"prior": {"dist": "loguniform", "min": -1, "max": 1}},
            {"prior": [1, 2]},
            {"prior": [2, 1]},
            {"prior": {"dist": "beta", "a": -1, "b": 2}},
            {"model": "white", "sigma": "free"},
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
)
KEYS = st.sampled_from(
    [
        "fX",
        "wX",
        "sigma",
        "prior",
        "min",
        "max",
        "dist",
        "value",
        "noise",
        "model",
        "file",
        "mock",
        "theta",
        "seed",
        "foreground",
        "terms",
        "reference",
        "mean",
        "scale",
        "planck_tau",
        "x_HI",
        "uvlf_bouwens2021",
        "redshifts",
        "band",
        "columns",
        "unit",
        "nlive",
        "nautilus",
        "points",
        "error_factor",
        "emulator_error",
        "systematics",
        "a0",
        "a1",
        "latex",
        "derived",
        "priors",
        "extrapolate",
        "output",
        "test_signal",
        "from",
        "floor",
        "dof",
        "sky",
        "covariance",
        "coefficients",
        "T_cmb",
        "marginalise",
    ]
) | st.text(max_size=6)

BASES = [
    small_run(),
    small_run(
        likelihood={
            "global_signal": {
                "noise": {"model": "student_t", "sigma": 25, "dof": 5},
                "emulator_error": True,
                "foreground": {"model": "log_polynomial", "terms": 3, "reference": 75, "scale": 100.0},
            },
            "planck_tau": {},
            "x_HI": {},
        },
        params={
            "fX": {"prior": {"dist": "loguniform", "min": 1e-3, "max": 1e1}},
            "wX": {"value": "1 + 0.1*sLy"},
            "ratio": {"derived": "fX/fesc", "latex": "r"},
        },
    ),
    small_run(
        likelihood={
            "global_signal": {
                "noise": {"model": "radiometer", "channel_width": 0.4, "integration_time": 100, "sky": "data"},
                "foreground": {"model": "hills", "reference": 75, "marginalise": False},
            },
            "uvlf_bouwens2021": {"mock": True},
        },
        sampler={"nautilus": {"n_live": 200, "seed": 3}},
    ),
    small_run(
        data={
            "mock": {
                "theta": THETA,
                "from": "emulator",
                "noise": 25,
                "seed": 2,
                "foreground": {"model": "regions", "file": "K.npz", "coefficients": [2.5, 2.7]},
            },
            "band": [50, 120],
        },
        likelihood={"global_signal": {"noise": {"sigma": 25}, "foreground": {"model": "regions", "file": "K.npz"}}},
    ),
    small_run(
        data={
            "mock": {
                "theta": THETA,
                "from": "emulator",
                "noise": 25,
                "seed": 2,
                "foreground": {"model": "basis", "file": "modes.h5", "coefficients": [2.0]},
            }
        },
        likelihood={
            "global_signal": {
                "noise": {"sigma": 25},
                "foreground": {"model": "basis", "file": "modes.h5", "mean": "mean.txt", "terms": 2},
            }
        },
    ),
]


def places(content, at=()):
    """Every place in nested mappings and lists."""
    yield at
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from places(value, (*at, key))


def mutate(data, content):
    """One to three changes of a nested structure: a value replaced or removed, a key renamed or added."""
    content = copy.deepcopy(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from([p for p in places(content) if p]))
        parent = content
        for key in place[:-1]:
            parent = parent[key]
        how = data.draw(st.sampled_from(["replace", "replace", "remove", "rename", "add"]))
        if how == "replace" or isinstance(parent, list):
            parent[place[-1]] = copy.deepcopy(data.draw(NASTY))
        elif how == "remove":
            del parent[place[-1]]
        elif how == "rename":
            parent[data.draw(KEYS)] = parent.pop(place[-1])
        else:
            parent[data.draw(KEYS)] = copy.deepcopy(data.draw(NASTY))
        if not content:
            break
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz")
    nu = redshift_to_frequency(Emulator.load("echo21").redshifts)
    basis = np.stack([(nu / 75.0) ** -2.5, (nu / 75.0) ** -2.6 * np.sin(nu / 5.0)], axis=1)
    np.savez(path / "K.npz", K=100.0 + np.outer(nu, [1.0, 2.0]), frequencies=nu)
    np.savetxt(path / "mean.txt", np.c_[nu, 1700.0 * basis[:, 0]], header="freq[MHz] T")
    spectra = np.random.default_rng(1).normal(size=(9, 2)) @ basis.T
    with h5py.File(path / "modes.h5", "w") as file:
        file.attrs["unit"] = "K"
        arrays = {"basis": basis, "covariance": np.diag([4.0, 1.0]), "frequencies": nu, "spectra": spectra}
        for name, array in (arrays | {"noise": np.full(len(nu), 0.02)}).items():
            file[name] = array
    return path


@given(st.data())
@FEWER
def test_run_files(folder, data):
    """`check` takes them or says why not; `fit` refuses the same ones and leaves nothing behind."""
    content = mutate(data, data.draw(st.sampled_from(BASES)))
    path = folder / "run.yaml"
    path.write_text(yaml.dump(content, allow_unicode=True), encoding="utf-8", errors="replace")
    if data.draw(st.booleans()):
        with only_input_errors():
            check_run(path, n_draws=3)
    else:
        prepare(path, folder / "out")


def prepare(path, out):
    """All that a fit does before it samples; what it refuses must leave nothing."""
    try:
        with only_input_errors():
            config = driver.run_file.load(path)
            with driver.run_folder.locked_folder(out):
                driver._prepare(config, path, out, None, False, False)
            assert driver.run_folder.state(out) == "unfinished"
            driver.run_folder.clear(out)
        assert not out.exists() or not list(out.iterdir())
    finally:
        shutil.rmtree(out, ignore_errors=True)


@given(st.data())
@FUZZ
def test_texts_of_run_files(folder, data):
    """Typing errors anywhere in the text."""
    text = yaml.dump(data.draw(st.sampled_from(BASES)))
    for _ in range(data.draw(st.integers(1, 4))):
        i, j = sorted(data.draw(st.integers(0, len(text))) for _ in range(2))
        new = data.draw(
            st.sampled_from(["", ":", "-", "{", "[", "&a ", "*a", "\t", "\0", "'", "#", "!!", "<<: ", "9" * 50])
        )
        text = text[:i] + new + text[min(j, i + 20) :]
    (folder / "run.yaml").write_text(text, encoding="utf-8")
    with only_input_errors():
        check_run(folder / "run.yaml", n_draws=2)


CELLS = st.one_of(
    st.floats(50, 100).map(str),
    st.sampled_from(
        ["", "nan", "inf", "-1", "0", "1e400", "1,5", "x", "--", "#", "2\x009", "0x10", "1_0", "é", '"', "1e3", "T"]
    ),
)


@given(st.data())
@FUZZ
def test_tables(folder, data):
    columns = data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=columns, max_size=columns), max_size=6))
    between = data.draw(st.sampled_from([",", ";", "\t", " ", "  ", " , "]))
    header = data.draw(
        st.sampled_from(["", "nu,T", "# nu T", "freq [MHz],T [K],weight", "z,T21", "a,a,a", "1,2", "\ufeffnu,T"])
    )
    text = "\n".join(filter(None, [header, *(between.join(row) for row in rows)]))
    raw = text.encode("utf-8") + data.draw(st.binary(max_size=3))
    path = folder / data.draw(st.sampled_from(["data.csv", "data.txt", "data.npy", "data.npz"]))
    path.write_bytes(raw)
    which = data.draw(
        st.sampled_from(
            [
                None,
                {"frequency": 0, "temperature": 1},
                {"frequency": "nu", "temperature": "T"},
                {"redshift": 0, "temperature": 1},
                {"frequency": 9, "temperature": -1},
            ]
        )
    )
    with only_input_errors():
        spectrum = read_spectrum(path, which, data.draw(st.sampled_from(["K", "mK", "k"])))
        assert np.isfinite(spectrum.frequency).all()
        assert np.isfinite(spectrum.temperature).all()
        assert (spectrum.weight > 0).all()


@pytest.fixture(scope="module")
def small_files(folder):
    """A small emulator and a small set, both real ones cut down: (path of the emulator, path of the set)."""
    source = Emulator.load("echo21")
    source.save(folder / "emulator.h5")
    rng = np.random.default_rng(1)
    low, high = np.array([(p.min, p.max) for p in source.parameters]).T
    theta = np.clip(low * (high / low) ** rng.uniform(size=(12, len(low))), low, high)
    with h5py.File(folder / "set.h5", "w") as file:
        text = h5py.string_dtype()
        for name, value in (("parameters", "name"), ("unit", "unit"), ("latex", "latex")):
            file.attrs[name] = np.array([getattr(p, value) for p in source.parameters], dtype=text)
        for name in ("min", "max", "log"):
            file.attrs[name] = np.array([getattr(p, name) for p in source.parameters])
        file["redshifts"] = source.redshifts
        for split in ("train", "val", "test"):
            file[f"par_{split}"] = theta
            file[f"signal_{split}"] = source(theta)
    return folder / "emulator.h5", folder / "set.h5"


def spoil(data, path):
    """Change one to two things in an HDF5 file."""
    with h5py.File(path, "r+") as file:
        names = []
        file.visit(names.append)
        for _ in range(data.draw(st.integers(1, 2))):
            attribute = data.draw(st.booleans()) and len(file.attrs)
            name = data.draw(st.sampled_from(sorted(file.attrs) if attribute else sorted(names)))
            how = data.draw(st.sampled_from(["remove", "replace", "group", "sparse", "nan", "reshape", "cast"]))
            if attribute:
                old = file.attrs[name]
                del file.attrs[name]
                if how != "remove":
                    new = [0, "x", np.nan, [], ["a"] * 3, [1e400] * 3, b"\xff", np.zeros((2, 2)), "{}", "[1]", "null"]
                    with contextlib.suppress(UnicodeEncodeError):
                        file.attrs[name] = (
                            data.draw(st.sampled_from(new)) if how != "cast" else np.array(old).astype("S20")
                        )
                continue
            if name not in file:
                continue
            old = file[name]
            small = isinstance(old, h5py.Dataset) and old.size < 10**7
            values = np.array(old[()]) if small and old.size else None
            del file[name]
            if how == "remove":
                continue
            if how == "group":
                file.create_group(name)
            elif how == "sparse":
                file.create_dataset(name, shape=(10**6, 10**5), dtype="f8", chunks=(100, 100))
            elif values is None or how == "replace":
                file[name] = data.draw(
                    st.sampled_from([0.0, "text", np.zeros(3), np.zeros((2, 3, 4)), np.zeros((0, 7))])
                )
            elif how == "nan" and np.issubdtype(values.dtype, np.floating):
                values.flat[values.size // 2] = data.draw(st.sampled_from([np.nan, np.inf, -1e30, 0.0]))
                file[name] = values
            elif how == "reshape" and values.ndim:
                file[name] = values[: max(1, len(values) // 2)]
            else:
                with contextlib.suppress(TypeError, ValueError):
                    file[name] = np.asarray(values).astype(data.draw(st.sampled_from(["S5", "i2", "c16", "f2"])))


@given(st.data())
@FUZZ
def test_emulator_files(small_files, folder, data):
    path = folder / "spoilt.h5"
    shutil.copyfile(small_files[0], path)
    spoil(data, path)
    with only_input_errors():
        emulator = Emulator.load(path)
        low, high = np.array([(p.min, p.max) for p in emulator.parameters]).T
        assert np.isfinite(emulator(0.5 * (low + high))).all()


@given(st.data())
@FUZZ
def test_set_files(small_files, folder, data):
    path = folder / "spoilt_set.h5"
    shutil.copyfile(small_files[1], path)
    spoil(data, path)
    with only_input_errors():
        load_signals(path)


@given(st.data())
@FUZZ
def test_damaged_files(small_files, folder, data):
    """Files cut short or with bytes changed, under any name."""
    content = bytearray(small_files[data.draw(st.integers(0, 1))].read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 20))):
        if content:
            content[data.draw(st.integers(0, min(len(content), 4096) - 1))] = data.draw(st.integers(0, 255))
    path = folder / data.draw(st.sampled_from(["damaged.h5", "damaged.npy", "damaged.pth", "damaged.csv"]))
    path.write_bytes(content)
    for read in (Emulator.load, load_signals, read_spectrum):
        with only_input_errors():
            read(path)


def use_foreground(path, out):
    """All that reads a file of a foreground."""
    nu = redshift_to_frequency(Emulator.load("echo21").redshifts)
    for block in (Basis(file=str(path), scale=1.0), Basis(file=str(path)), Regions(file=str(path))):
        with only_input_errors():
            component = block.build(nu)
            with np.errstate(all="ignore"):
                component.evaluate(np.full(len(component.names), 2.5))
    with only_input_errors():
        make_modes(path, 2).write(out)


@given(st.data())
@FUZZ
def test_foreground_files(folder, data):
    path = folder / "spoilt_modes.h5"
    shutil.copyfile(folder / "modes.h5", path)
    spoil(data, path)
    use_foreground(path, folder / "made.h5")


@pytest.mark.slow
@pytest.mark.ci
@given(st.data())
@FUZZ
def test_damaged_foreground_files(folder, data):
    """Files cut short or with bytes changed."""
    content = bytearray((folder / data.draw(st.sampled_from(["modes.h5", "K.npz", "mean.txt"]))).read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 20))):
        if content:
            content[data.draw(st.integers(0, min(len(content), 4096) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged_foreground"
    path.write_bytes(content)
    use_foreground(path, folder / "made.h5")


@pytest.fixture(scope="module")
def finished(folder):
    run = small_run(sampler={"polychord": {"nlive": 20, "num_repeats": 2, "seed": 1}})
    return driver.fit(run, folder / "finished", jobs=1)


FOLDER_FILES = [
    "run.yaml",
    "data.csv",
    "summary.json",
    "chain.paramnames",
    "chain.txt",
    "chain_dead-birth.txt",
    "chain_phys_live-birth.txt",
    "chain_equal_weights.txt",
    "chain.state.json",
    "chain_bias.json",
]


@given(st.data())
@FEWER
def test_run_folders(finished, folder, data):
    """Reading, reporting and comparing a folder whose files are damaged, with and without its checksums."""
    broken = folder / "broken"
    shutil.rmtree(broken, ignore_errors=True)
    broken.mkdir()
    for name in FOLDER_FILES[:-1]:
        shutil.copyfile(finished / name, broken / name)
    if data.draw(st.booleans()):
        (broken / "chain.state.json").unlink()
    for _ in range(data.draw(st.integers(1, 2))):
        path = broken / data.draw(st.sampled_from(FOLDER_FILES))
        how = data.draw(st.sampled_from(["remove", "cut", "bytes", "folder", "json", "link"]))
        content = path.read_bytes() if path.is_file() else b""
        if path.is_dir():
            continue
        path.unlink(missing_ok=True)
        if how == "cut":
            path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        elif how == "bytes":
            i = data.draw(st.integers(0, len(content)))
            new = data.draw(st.binary(max_size=4) | st.sampled_from(string.punctuation).map(str.encode))
            path.write_bytes(content[:i] + new + content[i + len(new) :])
        elif how == "folder":
            path.mkdir()
        elif how == "json":
            path.write_text(data.draw(st.sampled_from(['{"a": 1}', "[]", "null", '{"parameters": 3}', "1e400"])))
        elif how == "link":
            path.symlink_to(broken / "nowhere")
    with only_input_errors():
        read_run(broken)
    with only_input_errors():
        write_report(read_run(broken), broken / "report.html")
    with only_input_errors():
        read_chain(broken)
    with only_input_errors():
        read_chain(broken / "chain")


@pytest.mark.slow
def test_more_of_the_same():
    """2,000 examples of each, in a process of its own, with another seed each time."""
    import subprocess
    import sys

    environment = os.environ | {"LSTMFIT_FUZZ": "2000"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", str(Path(__file__))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
