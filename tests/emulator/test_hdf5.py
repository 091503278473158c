"""HDF5 files of any content: read, or refused in one line; nothing is read that was not declared."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import MAXIMA, MINIMA, PARAMETERS, draw_theta, random_network, write_gem, write_keras2

from lstmfit import Emulator
from lstmfit.datasets.signal_sets import load_signals, write_test_set
from lstmfit.emulator import store
from lstmfit.emulator.formats.globalemu import read_folder
from lstmfit.emulator.formats.lstm21cm import read_lstm21cm
from lstmfit.errors import InputError
from lstmfit.simulators.setfile import read_finished, read_plan_of, summary

GLOBALEMU = Path(__file__).parent / "formats" / "data" / "globalemu_ares"


def sign(path):
    """Give an emulator file the checksum of its content, as someone would who means harm, or made it by hand."""
    with h5py.File(path, "r+") as file:
        sizes = [0]
        file.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
        if max(sizes) > 10**8:
            # To read it here would take all memory; it is to be refused before the checksum is looked at.
            return
        try:
            header = {name: file.attrs[name] for name in ("architecture", "parameters", "record")}
            groups = {
                group: {name: file[group][name][()] for name in file[group]}
                for group in ("weights", "scaling", "errors", "grid")
                if group in file
            }
            file.attrs["checksum"] = store._checksum(header, groups)
        except Exception:
            # What cannot be signed is refused anyhow.
            return


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hdf5")
    rng = np.random.default_rng(1)
    emulator = Emulator(
        *random_network(rng), np.linspace(5, 50, 45), PARAMETERS, errors={"rms": np.ones(45), "covariance": np.eye(45)},
        record={"simulator": "echo21", "test": {"mean_percent": 1.0}},
    )  # fmt: skip
    emulator.save(folder / "emulator.h5")
    write_gem(folder / "gem.h5", rng)
    write_test_set(folder / "named.h5", load_signals(folder / "gem.h5"))
    write_keras2(folder / "keras.h5", rng)
    for name in ("keras", "changed_keras", "cut_keras", "one_keras"):
        np.savetxt(folder / f"train_mins_{name}.txt", MINIMA)
        np.savetxt(folder / f"train_maxs_{name}.txt", MAXIMA)
    shutil.copytree(GLOBALEMU, folder / "globalemu")
    shutil.copy(GLOBALEMU / "model.h5", folder / "dense.h5")
    return folder


def read_emulator(path):
    if not path.name.startswith("cut"):
        sign(path)
    Emulator.load(path, engine="numpy")


def read_dense(path):
    shutil.copy(path, path.parent / "globalemu" / "model.h5")
    read_folder(path.parent / "globalemu")


READERS = {"emulator.h5": read_emulator, "gem.h5": load_signals, "named.h5": load_signals, "keras.h5": read_lstm21cm,
           "dense.h5": read_dense}  # fmt: skip

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**62), 2**62), st.floats(), st.text(max_size=20),
    st.sampled_from(["{}", "[]", "null", "[1, 2]", '{"a": 1}', "K", "\x1b[2J", "9" * 5000]),
    st.lists(st.floats(), max_size=4), st.lists(st.text(max_size=4), max_size=4), st.binary(max_size=4),
)  # fmt: skip
MUTATIONS = st.sampled_from(
    ["remove", "group", "text", "nan", "infinite", "shape", "scalar", "sparse", "complex", "link", "object", "negative",
     "zero", "attribute", "no attribute", "empty"]
)  # fmt: skip


def mutate(file, where, how, value):
    names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    holders = [file, *(file[name].parent for name in names)]
    if how in ("attribute", "no attribute"):
        holder = holders[where % len(holders)]
        keys = sorted(holder.attrs)
        if keys:
            key = keys[where % len(keys)]
            del holder.attrs[key]
            if how == "attribute":
                try:
                    holder.attrs[key] = h5py.Empty("f") if value is None else value
                except (TypeError, ValueError, OverflowError):
                    holder.attrs[key] = 3
        return
    if not names:
        return
    name = names[where % len(names)]
    old = file[name][()]
    del file[name]
    if how == "group":
        file.create_group(name)
    elif how == "text":
        file[name] = "abc"
    elif how in ("nan", "infinite", "negative", "zero"):
        new = np.array(old, dtype=float)
        new.reshape(-1)[where % new.size :] = {"nan": np.nan, "infinite": np.inf, "negative": -1e9, "zero": 0}[how]
        file[name] = new
    elif how == "shape":
        file[name] = np.resize(old, (3, 5, 2)[: where % 3 + 1])
    elif how == "scalar":
        file[name] = 1.0
    elif how == "sparse":
        shape = tuple(max(s, 1) for s in np.shape(old)) or (1,)
        file.create_dataset(name, (10**9, *shape[1:]), np.float64, chunks=(1, *shape[1:]))
    elif how == "complex":
        file[name] = np.array(old, dtype=complex)
    elif how == "link":
        file[name] = h5py.ExternalLink("/etc/passwd", "/x")
    elif how == "object":
        file.create_dataset(name, data=["a", "b"], dtype=h5py.string_dtype())
    elif how == "empty":
        file[name] = h5py.Empty("f")


def read_or_refused(read, path):
    try:
        read(path)
    except InputError as refusal:
        message = str(refusal)
    else:
        return
    assert len(message) < 400
    assert message.isprintable()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(READERS)), st.integers(0, 10**6), MUTATIONS, VALUES)
def test_a_changed_file_is_read_or_refused_in_one_line(originals, name, where, how, value):
    path = originals / f"changed_{name}"
    shutil.copy(originals / name, path)
    with h5py.File(path, "r+") as file:
        mutate(file, where, how, value)
    read_or_refused(READERS[name], path)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(READERS)), st.floats(0.0, 1.0))
def test_a_file_that_is_cut_is_refused(originals, name, fraction):
    """Cut, not scrambled: libhdf5 itself does not survive every change of its own book-keeping."""
    path = originals / f"cut_{name}"
    old = (originals / name).read_bytes()
    cut = old[: min(int(fraction * len(old)), len(old) - 1)]
    path.write_bytes(cut)
    with pytest.raises(InputError) as refusal:
        READERS[name](path)
    assert len(str(refusal.value)) < 400
    assert str(refusal.value).isprintable()


def changed(originals, name, change):
    path = originals / f"one_{name}"
    shutil.copy(originals / name, path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


def attribute(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


def sparse(name, shape):
    def change(file):
        if name in file:
            del file[name]
        file.create_dataset(name, shape, np.float64, chunks=tuple(min(n, 1000) for n in shape))

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("emulator.h5", replace("grid/redshifts", np.linspace(5, 50, 10)), r"has shape \(10,\); expected \(45,\)"),
        ("emulator.h5", replace("grid/redshifts", np.linspace(50, 5, 45)), "45 redshifts for 45 channels; .*ascending"),
        ("emulator.h5", replace("weights/output_kernel", np.full((20, 14), np.nan)), "output_kernel has 280 NaN"),
        ("emulator.h5", replace("scaling/scale", np.array([1.0, np.nan])), "scale has 1 NaN or infinite"),
        ("emulator.h5", replace("scaling/scale", np.array([1.0, -1.0])), "scale is not positive"),
        ("emulator.h5", replace("scaling/log", np.array([0, 0, 0])), "log has type int64, but booleans are expected"),
        ("emulator.h5", replace("scaling/log", np.array([False] * 3)), "disagree about which are logarithmic"),
        ("emulator.h5", sparse("errors/relative", (10**11,)), "declares 800 GB but contains 0 B"),
        ("emulator.h5", sparse("errors/bias", (10**11,)), r"bias has shape \(100000000000,\); expected \(45,\)"),
        ("emulator.h5", attribute("architecture", "[]"), "a JSON object is expected"),
        ("emulator.h5", attribute("architecture", '{"n_params": 3, "n_channels": "x"}'), "is 'x'"),
        ("emulator.h5", attribute("architecture", '{"n_params": 3, "n_channels": 1e9}'), "n_channels is 1000000000.0"),
        ("emulator.h5", attribute("architecture", '{"n_params": 10, "n_channels": 0}'), "a whole number of at least 1"),
        ("emulator.h5", attribute("architecture", '{"depth": 3}'), "architecture is not valid in this version"),
        (
            "emulator.h5",
            attribute("parameters", '[{"name": "a", "min": "low", "max": 2}]'),
            "min: 'low' is not a number",
        ),
        ("emulator.h5", attribute("parameters", "[]"), "the network needs 3 distinct names"),
        ("emulator.h5", attribute("record", '{"test": [1]}'), "its record has test"),
        ("emulator.h5", attribute("format", 3), "not an emulator"),
        ("emulator.h5", attribute("format_version", "new"), "format version new"),
        ("gem.h5", lambda f: f.pop("par_train") and f.create_group("par_train"), "par_train is a group, but a dataset"),
        ("gem.h5", sparse("signal_train", (40, 10**9)), r"expected \(n, 7\) and \(n, 451\)"),
        ("gem.h5", lambda f: (sparse("par_train", (2 * 10**8, 7))(f), sparse("signal_train", (2 * 10**8, 451))(f)),
         "par_train declares 11.2 GB but contains 0 B"),
        ("gem.h5", replace("par_train", np.array([["a"] * 7] * 40, dtype="S1")), "par_train has type .S1, but numbers"),
        ("named.h5", attribute("log", np.array(["a"] * 7, dtype="S")), "attribute log is .*booleans are expected"),
        ("named.h5", attribute("min", np.zeros(3)), "attribute min has 3 entries, but 7 are expected"),
        ("named.h5", attribute("max", np.full(7, np.nan)), "attribute max is .*finite numbers are expected"),
        ("named.h5", attribute("parameters", "fX"), "attribute parameters is 'fX', but a list is expected"),
        ("named.h5", attribute("parameters", np.array([1.0] * 7)), "strings are expected"),
        ("named.h5", attribute("signal_unit", "Kelvin"), "signal_unit is 'Kelvin'; expected mK or K"),
        ("named.h5", replace("redshifts", "z"), "redshifts has type object, but numbers are expected"),
        ("keras.h5", attribute("model_config", "3"), "a JSON object is expected"),
        ("keras.h5", attribute("model_config", '{"config": [1]}'), "does not list any layers"),
        ("keras.h5", lambda f: f["model_weights"].pop("dense"), "the weights of layer dense are missing"),
        ("keras.h5", lambda f: f["model_weights/dense"].attrs.__setitem__("weight_names", 3), "a list is expected"),
        ("keras.h5", replace("model_weights/lstm/lstm/lstm_cell/bias:0", np.zeros(7)), "weights have shapes"),
        ("keras.h5", replace("model_weights/dense/dense/bias:0", np.array([np.inf])), "NaN or infinite"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(originals, name, change, message):
    path = changed(originals, name, change)
    with pytest.raises(InputError, match=message) as error:
        READERS[name](path)
    assert len(str(error.value)) < 400


def test_a_keras_file_of_another_network_is_told_of_once(originals):
    path = changed(originals, "keras.h5", lambda f: None)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["class_name"] = "GRU"
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(InputError, match="layers GRU, LSTM, Dense; a Keras file of 21cmLSTM may") as error:
        read_lstm21cm(path)
    assert str(error.value).count("21cmLSTM") == 1
    with h5py.File(path, "r+") as file:
        del file.attrs["model_config"]
    with pytest.raises(InputError, match="attribute model_config is missing") as error:
        read_lstm21cm(path)
    assert str(error.value).count("missing") == 1


def test_minima_and_maxima_that_are_none(originals):
    path = changed(originals, "keras.h5", lambda f: None)
    low, high = (path.with_name(f"train_{end}_one_keras.txt") for end in ("mins", "maxs"))
    before = low.read_text(), high.read_text()
    high.write_text("500 " * 9)
    for content, message in (
        ("", "has 0 numbers"), ("a b", "not a list of numbers"), ("nan " * 9, "finite numbers are expected"),
        ("400 " * 9, r"fstar runs from 10\^400 .* log10 of its range is expected"),
        ("\x00\xff", "not a list of numbers"), ("600 " * 9, "number 1 is not below its maximum"),
    ):  # fmt: skip
        low.write_text(content, encoding="latin-1")
        with pytest.raises(InputError, match=message):
            read_lstm21cm(path)
    low.write_text(before[0])
    high.write_text(before[1])


def test_signals_in_kelvin_are_noticed(originals, tmp_path):
    whole = load_signals(originals / "gem.h5")

    def in_kelvin(file):
        for split in ("train", "val", "test"):
            file[f"signal_{split}"][...] = file[f"signal_{split}"][()] / 1000.0

    path = changed(originals, "gem.h5", in_kelvin)
    with pytest.raises(InputError, match=r"at most 0.1, which looks like K, .*signal_unit.*= 'K'"):
        load_signals(path)
    with h5py.File(path, "r+") as file:
        file.attrs["signal_unit"] = "K"
    np.testing.assert_allclose(load_signals(path).train.signal, whole.train.signal, rtol=1e-6)
    with h5py.File(path, "r+") as file:
        file.attrs["signal_unit"] = "mK"
    with pytest.warns(UserWarning, match="looks like K, but signal_unit is mK"):
        load_signals(path)
    path = changed(originals, "gem.h5", attribute("signal_unit", "K"))
    with h5py.File(path, "r+") as file:
        file["signal_train"][...] = file["signal_train"][()] * 30
    with pytest.warns(UserWarning, match="looks like mK, but signal_unit is K"):
        load_signals(path)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("3", "plan in .* is damaged"),
        ("{}", "simulator is missing"),
        ("{", "is damaged"),
        ('{"simulator": 1}', "simulator is 1"),
        ('{"simulator": "a", "design": "b", "seed": -1}', "seed: -1 is out of bounds"),
    ],
)
def test_plans(tmp_path, plan, message):
    path = tmp_path / "set.h5"
    with h5py.File(path, "w") as file:
        file.attrs["plan"] = plan
    with pytest.raises(InputError, match=message):
        read_plan_of(path)
    assert read_plan_of(tmp_path / "none.h5") is None
    with pytest.raises(InputError, match=r"dataset par_train is missing|par_val is missing"):
        summary(path)
    assert callable(read_finished)


def test_paths_that_no_file_can_have():
    for name in ("a\0b", "x" * 5000, "", "~nosuchuser/e.h5"):
        for read in (Emulator.load, load_signals):
            with pytest.raises(InputError) as error:
                read(name)
            assert len(str(error.value)) < 400


def test_theta_of_the_original(originals, rng):
    """The file that is changed above is a good one."""
    assert np.isfinite(Emulator.load(originals / "emulator.h5")(draw_theta(rng, 3))).all()
