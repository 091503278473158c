"""globalemu's folders as they are: the numbers of globalemu itself, and what is not one of its folders."""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from lstmfit import Emulator
from lstmfit.datasets.specs import find_spec
from lstmfit.emulator.formats.globalemu import load_globalemu, make_engine, read_folder
from lstmfit.errors import InputError

DATA = Path(__file__).parent / "data"
ARES = DATA / "globalemu_ares"
RELEASED = Path(__file__).resolve().parents[4] / "shared" / "data" / "published" / "globalemu"
released = pytest.mark.skipif(not RELEASED.is_dir(), reason="the released networks of globalemu are not at hand")


@pytest.fixture(scope="module")
def references():
    with np.load(DATA / "references.npz") as file:
        return dict(file)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(ARES, tmp_path / "mine")


def settings(folder, **changes):
    content = pickle.loads((folder / "preprocess_settings.pkl").read_bytes()) | changes
    (folder / "preprocess_settings.pkl").write_bytes(pickle.dumps(content))


def test_a_network_of_ares_gives_the_numbers_of_globalemu(references):
    """Saved by Keras 3, three layers of 32, neither baseline nor resampling, redshifts of its own."""
    emulator = Emulator.load(ARES, parameters="ares")
    theta, expected = references["globalemu_ares_theta"], references["globalemu_ares_output"]
    np.testing.assert_allclose(emulator(theta)[:, ::7], expected, atol=1e-3)
    np.testing.assert_allclose([emulator(row)[::7] for row in theta], expected, atol=1e-3)
    np.testing.assert_allclose(emulator.redshifts, np.arange(6, 55, 0.1))
    assert emulator.names[:3] == ("c_X", "f_esc", "T_min")
    assert emulator.network == "globalemu 9-32-32-32-1"
    assert emulator.parameters[0].log
    assert emulator.parameters[0].max == pytest.approx(theta[:, 0].max())


@released
def test_the_released_network_gives_the_numbers_of_globalemu(references):
    """With baseline, resampling and a standard deviation; a value of 0 for fX counts as 1e-6."""
    emulator = Emulator.load(RELEASED / "T_release")
    theta, expected = references["globalemu_T_release_theta"], references["globalemu_T_release_output"]
    assert (theta[:, 2] == 0).any()
    np.testing.assert_allclose(emulator(theta)[:, ::9], expected, atol=1e-3)
    assert emulator.names == ("fstar", "Vc", "fX", "tau", "alpha", "nu_min", "Rmfp")
    assert emulator.name == "T_release"


@released
def test_the_neutral_fraction_has_its_numbers_and_is_no_signal(references):
    folder = read_folder(RELEASED / "xHI_release")
    theta, expected = references["globalemu_xHI_release_theta"], references["globalemu_xHI_release_output"]
    theta = np.where(theta == 0, 1e-6, theta)
    found = make_engine(folder, [True, True, True, False, False, False, False]).batch(theta)
    np.testing.assert_allclose(found[:, ::5], expected, atol=1e-5)
    with pytest.raises(InputError, match=r"globalemu emulator of the neutral fraction, .* \(T_release of globalemu\)"):
        Emulator.load(RELEASED / "xHI_release", parameters="21cmgem")


@released
def test_parameters_in_another_order_are_not_taken_for_those_of_21cmgem(tmp_path):
    """The numbers of inputs and channels fit, the ranges do not."""
    folder = shutil.copytree(RELEASED / "T_release", tmp_path / "swapped", copy_function=shutil.copy)
    for end in ("mins", "maxs"):
        values = np.loadtxt(folder / f"data_{end}.txt")
        (folder / f"data_{end}.txt").unlink()
        np.savetxt(folder / f"data_{end}.txt", values[[0, 1, 2, 5, 3, 4, 6]])
    with pytest.raises(InputError, match=r"the limits of parameter 4 do not match it; describe its parameters"):
        Emulator.load(folder)


def test_calls_are_independent_of_each_other_and_of_copies(references):
    emulator = load_globalemu(ARES, find_spec("ares"))
    theta = references["globalemu_ares_theta"]
    expected = emulator(theta)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(emulator, np.tile(theta, (20, 1))))
    np.testing.assert_array_equal(found, np.tile(expected, (20, 1)))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(emulator))(theta), expected)
    nothing = theta[:3].copy()
    nothing[0, 0], nothing[1, 1] = -1.0, np.nan
    found = emulator(nothing, outside="allow")
    assert np.isnan(found[:2]).all()
    np.testing.assert_array_equal(found[2], expected[2])


def by_hand(folder, x):
    """The network of a folder in float64 for scaled inputs (n_channels, n_inputs)."""
    functions = {
        "linear": lambda v: v, "tanh": np.tanh, "relu": lambda v: np.maximum(v, 0),
        "sigmoid": lambda v: 1 / (1 + np.exp(-v)), "elu": lambda v: np.where(v > 0, v, np.expm1(v)),
        "softplus": lambda v: np.log1p(np.exp(v)),
    }  # fmt: skip
    for layer in folder.layers:
        x = functions[layer.config["activation"]](x @ layer.arrays[0] + layer.arrays[1])
    return x[:, 0]


def change_activations(folder, *activations):
    with h5py.File(folder / "model.h5", "r+") as file:
        content = json.loads(file.attrs["model_config"])
        layers = [layer for layer in content["config"]["layers"] if layer["class_name"] == "Dense"]
        for layer, activation in zip(layers, activations):
            layer["config"]["activation"] = activation
        file.attrs["model_config"] = json.dumps(content)


@pytest.mark.parametrize("activation", ["linear", "tanh", "relu", "sigmoid", "elu", "softplus"])
def test_every_activation(folder, activation):
    change_activations(folder, activation, "tanh", activation, "linear")
    emulator = Emulator.load(folder, parameters="ares")
    theta = np.array([(p.min * p.max) ** 0.5 if p.log else 0.3 * p.min + 0.7 * p.max for p in emulator.parameters])
    read = read_folder(folder)
    values = np.where([p.log for p in emulator.parameters], np.log10(np.abs(theta)), theta)
    scaled = (values - read.low) / (read.high - read.low)
    inputs = np.column_stack([np.tile(scaled, (490, 1)), (read.redshifts - 6) / (read.redshifts[-1] - 6)])
    np.testing.assert_allclose(emulator(theta), by_hand(read, inputs) * read.scale, rtol=1e-5, atol=1e-3)


def test_resampling_and_baseline(folder, references):
    """What the redshift enters by, and what is added, are those of the folder."""
    theta = references["globalemu_ares_theta"][2]
    plain = Emulator.load(folder, parameters="ares")(theta)
    grid = np.loadtxt(folder / "z.txt")
    settings(folder, resampling=True, AFB=True)
    np.savetxt(folder / "cdf.txt", (grid - grid[0]) / (grid[-1] - grid[0]))
    np.savetxt(folder / "AFB.txt", -grid)
    np.testing.assert_allclose(Emulator.load(folder, parameters="ares")(theta), plain - grid, atol=1e-4)
    np.savetxt(folder / "cdf.txt", np.zeros(490))
    np.testing.assert_allclose(Emulator.load(folder, parameters="ares")(theta) + grid, plain[0], atol=1e-4)


def test_what_a_folder_lacks(folder):
    for name, message in (
        ("z.txt", r"no file .*z.txt \(the redshifts\); copy the whole folder again"),
        ("data_maxs.txt", r"no file .*data_maxs.txt \(one per parameter"),
        ("labels_stds.npy", "no file .*labels_stds.npy, which is needed for std_division"),
        ("preprocess_settings.pkl", "no file .*preprocess_settings.pkl"),
        ("model.h5", "no globalemu network .*model.h5"),
    ):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(InputError, match=message):
            Emulator.load(folder, parameters="ares")
        (folder / name).write_bytes(content)
    settings(folder, resampling=True)
    with pytest.raises(InputError, match=r"no file .*cdf.txt \(the distribution needed for resampling"):
        Emulator.load(folder, parameters="ares")
    settings(folder, resampling=False, AFB=True)
    with pytest.raises(InputError, match=r"no file .*AFB.txt \(the baseline needed for AFB, which preprocess_settings"):
        Emulator.load(folder, parameters="ares")


def test_parameters_must_be_named_and_fit():
    with pytest.raises(InputError, match=r"takes 8 parameters and gives 490 channels; .* parameters: SPEC"):
        Emulator.load(ARES)
    with pytest.raises(InputError, match="takes 8 parameters; the spec has 7: fstar"):
        Emulator.load(ARES, parameters="21cmgem")


def test_lists_of_numbers_that_are_none(folder):
    for name, content, message in (
        ("z.txt", "a b", "z.txt is not a list of numbers"),
        ("z.txt", "", r"z.txt has no numbers, but finite numbers are expected \(the redshifts\)"),
        ("z.txt", "8 7 6", "z.txt: redshifts 8.0, 7.0, 6.0 do not ascend"),
        ("data_mins.txt", "1 2 3", r"data_mins.txt has 3 numbers, but 8 are expected \(one per parameter"),
        ("data_mins.txt", "99 " * 8, "data_mins.txt: number 1 is not below its maximum"),
        ("data_maxs.txt", "nan " * 8, "data_maxs.txt has numbers up to nan, but finite numbers are expected"),
        ("data_maxs.txt", "1e44 " * 8, r"c_X runs from 10\^36.* the log10 of its range is expected"),
    ):
        before = (folder / name).read_text()
        (folder / name).write_text(content)
        with pytest.raises(InputError, match=message):
            Emulator.load(folder, parameters="ares")
        (folder / name).write_text(before)
    for content, message in ((np.array([1.0, 2.0]), "one positive number"), (np.array(-1.0), "one positive")):
        np.save(folder / "labels_stds.npy", content)
        with pytest.raises(InputError, match=message):
            Emulator.load(folder, parameters="ares")
    (folder / "labels_stds.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"labels_stds\.npy is not a NumPy array"):
        Emulator.load(folder, parameters="ares")


class Hostile:
    """Touches a file when it is unpickled as pickle does it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_settings_that_are_none(folder, tmp_path):
    (folder / "preprocess_settings.pkl").write_bytes(pickle.dumps(Hostile(tmp_path / "made")))
    with pytest.raises(InputError, match=r"refers to io.open, .* no code is run"):
        Emulator.load(folder, parameters="ares")
    assert not (tmp_path / "made").exists()
    for content in ([1, 2], {"AFB": True}, {"AFB": 1, "std_division": True, "resampling": True}):
        (folder / "preprocess_settings.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match="AFB, std_division, resampling must each be True or False"):
            Emulator.load(folder, parameters="ares")


def test_networks_of_another_kind(folder, rng, tmp_path):
    change_activations(folder, "swish")
    with pytest.raises(InputError, match="a layer has activation 'swish'; supported are linear, tanh, relu"):
        Emulator.load(folder, parameters="ares")
    change_activations(folder, "tanh", "tanh", "tanh", "relu")
    with pytest.raises(InputError, match="neutral fraction"):
        Emulator.load(folder, parameters="ares")
    from networks import write_keras2

    write_keras2(folder / "model.h5", rng)
    with pytest.raises(InputError, match="layers LSTM, LSTM, Dense; a globalemu network may only have Dense"):
        Emulator.load(folder, parameters="ares")
    (folder / "model.h5").write_bytes(b"no network")
    with pytest.raises(InputError, match="is not a complete globalemu network"):
        Emulator.load(folder, parameters="ares")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is a folder, but not a globalemu emulator; give an emulator file"):
        Emulator.load(tmp_path / "empty")


def test_weights_that_do_not_follow_one_another(folder):
    with h5py.File(folder / "model.h5", "r+") as file:
        names, weights = [], file["model_weights"]
        weights.visit(names.append)
        name = next(name for name in names if getattr(weights[name], "shape", None) == (32, 32))
        del weights[name]
        weights[name] = np.zeros((31, 32), np.float32)
    with pytest.raises(InputError, match=r"a layer has weights of shape \(31, 32\), but 32 inputs"):
        Emulator.load(folder, parameters="ares")
