"""21cmKAN without torch: its authors' numbers, speed of light, and files that are not its."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from torch_files import Module, kan_layer, kan_module, tensor, write_torch

from lstmfit import Emulator
from lstmfit.datasets.specs import presets
from lstmfit.emulator.formats.kan import load_kan
from lstmfit.errors import InputError

DATA = Path(__file__).parent / "data" / "references.npz"
PUBLISHED = Path(__file__).resolve().parents[4] / "shared" / "data" / "published" / "21cmKAN"
SIZES = (7, 4, 5, 451)


def dense(layers, x):
    """The network as its authors write it, with all bases by Cox and de Boor."""
    for layer in layers:
        knots, points = layer["grid"], x[..., None]
        bases = ((points >= knots[:, :-1]) & (points < knots[:, 1:])).astype(float)
        for k in range(1, 4):
            left = (points - knots[:, : -(k + 1)]) / (knots[:, k:-1] - knots[:, : -(k + 1)]) * bases[:, :, :-1]
            right = (knots[:, k + 1 :] - points) / (knots[:, k + 1 :] - knots[:, 1:-k]) * bases[:, :, 1:]
            bases = left + right
        spline = layer["spline_weight"] * layer["spline_scaler"][:, :, None]
        x = (x / (1 + np.exp(-x))) @ layer["base_weight"].T + np.einsum("nik,oik->no", bases, spline)
    return x


@pytest.fixture
def files(tmp_path, rng):
    """A small network in the files of 21cmKAN, with its layers and extremes."""
    layers = [kan_layer(rng, a, b) for a, b in zip(SIZES[:-1], SIZES[1:])]
    low = np.array([-4.0, 0.6, -6.0, 0.04, 1.0, 0.1, 10.0, -290.0])
    high = np.array([-0.3, 2.0, 3.0, 0.17, 1.5, 3.0, 50.0, 35.0])
    write_torch(tmp_path / "emulator_mine.pth", kan_module(layers))
    np.save(tmp_path / "train_mins_mine.npy", low)
    np.save(tmp_path / "train_maxs_mine.npy", high)
    return tmp_path / "emulator_mine.pth", layers, low, high


def draw(low, high, rng, n):
    x = rng.uniform(size=(n, 7))
    theta = low[:-1] + x * (high - low)[:-1]
    theta[:, :3] = 10.0 ** theta[:, :3]
    return x, theta


def test_it_is_the_network_of_its_authors(files, rng):
    """At 1e-9 mK, in single calls, batches, threads and copies; also far outside the grid of the splines."""
    path, layers, low, high = files
    emulator = Emulator.load(path)
    x, theta = draw(low, high, rng, 40)
    expected = (dense(layers, x) * (high - low)[-1] + low[-1])[:, ::-1]
    np.testing.assert_allclose(emulator(theta), expected, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose([emulator(row) for row in theta], expected, rtol=1e-12, atol=1e-9)
    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_array_equal(list(pool.map(emulator, theta)), emulator(theta))
    for other in (copy.deepcopy(emulator), pickle.loads(pickle.dumps(emulator))):
        np.testing.assert_array_equal(other(theta), emulator(theta))
    assert emulator.names == ("fstar", "Vc", "fX", "tau", "alpha", "nu_min", "Rmfp")
    assert emulator.network == "21cmKAN 7-4-5-451"
    assert emulator.parameters[0].max == pytest.approx(10**-0.3)


def test_zero_heating_counts_as_the_least(files, rng):
    path, _, low, high = files
    emulator = Emulator.load(path)
    theta = draw(low, high, rng, 2)[1]
    zero, least = theta.copy(), theta.copy()
    zero[:, 2], least[:, 2] = 0.0, 1e-6
    np.testing.assert_array_equal(emulator(zero), emulator(least))


def test_derivatives(files, rng):
    """By central differences, against ones of another step."""
    path, _, low, high = files
    emulator = Emulator.load(path)
    theta = draw(low, high, rng, 1)[1][0]
    jacobian = emulator.jacobian(theta)
    for i in range(7):
        step = np.zeros(7)
        step[i] = 3e-6 * theta[i]
        slope = (emulator(theta + step, "allow") - emulator(theta - step, "allow")) / (2 * step[i])
        np.testing.assert_allclose(jacobian[:, i], slope, rtol=1e-4, atol=1e-6 * np.abs(slope).max())


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published networks of 21cmKAN are not at hand")
@pytest.mark.parametrize("name", ["21cmGEM", "ARES"])
def test_the_published_networks_give_the_numbers_of_torch(name):
    with np.load(DATA) as file:
        theta, expected = file[f"kan_{name}_theta"], file[f"kan_{name}_signal"]
    emulator = Emulator.load(PUBLISHED / f"emulator_{name}.pth")
    got = emulator(theta)
    every = round(got.shape[1] / expected.shape[1])
    np.testing.assert_allclose(got[:, ::every], expected, atol=1e-9)
    assert emulator.names == tuple(presets()[name].names)


def test_a_state_dict_is_read_as_well(files, tmp_path, rng):
    _, layers, low, high = files
    content = {f"layers.{i}.{name}": tensor(array) for i, layer in enumerate(layers) for name, array in layer.items()}
    write_torch(tmp_path / "emulator_state.pth", content)
    for what in ("mins", "maxs"):
        (tmp_path / f"train_{what}_mine.npy").rename(tmp_path / f"train_{what}_state.npy")
    x, theta = draw(low, high, rng, 3)
    expected = (dense(layers, x) * (high - low)[-1] + low[-1])[:, ::-1]
    np.testing.assert_allclose(Emulator.load(tmp_path / "emulator_state.pth")(theta), expected, atol=1e-9)


def test_other_parameters_are_named_by_a_spec(tmp_path, rng):
    layers = [kan_layer(rng, 2, 3), kan_layer(rng, 3, 6)]
    write_torch(tmp_path / "emulator_toy.pth", kan_module(layers))
    np.save(tmp_path / "train_mins_toy.npy", [-2.0, 0.0, -100.0])
    np.save(tmp_path / "train_maxs_toy.npy", [1.0, 5.0, 20.0])
    with pytest.raises(InputError, match="takes 2 parameters and gives 6 channels; known are 21cmgem 7 and 451"):
        Emulator.load(tmp_path / "emulator_toy.pth")
    spec = tmp_path / "toy.yaml"
    spec.write_text("redshifts: {min: 6, max: 11, n: 6}\nparameters: [{name: heat, log: true}, {name: width}]\n")
    emulator = Emulator.load(tmp_path / "emulator_toy.pth", parameters=spec)
    assert emulator.names == ("heat", "width")
    assert emulator.parameters[0].min == pytest.approx(0.01)
    np.testing.assert_allclose(emulator.redshifts, np.arange(6, 12))
    spec.write_text("redshifts: {min: 6, max: 11, n: 5}\nparameters: [{name: heat}, {name: width}]\n")
    with pytest.raises(InputError, match="has 6 channels; the spec has 5 redshifts"):
        Emulator.load(tmp_path / "emulator_toy.pth", parameters=spec)
    spec.write_text("parameters: [{name: heat}, {name: width}]\n")
    with pytest.raises(InputError, match="has no redshift grid; add redshifts"):
        Emulator.load(tmp_path / "emulator_toy.pth", parameters=spec)
    spec.write_text("parameters: [{name: heat}]\n")
    with pytest.raises(InputError, match="takes 2 parameters; the spec has 1: heat"):
        Emulator.load(tmp_path / "emulator_toy.pth", parameters=spec)
    spec.write_text("parameters: [{name: heat, logarithmic: true}]\n")
    with pytest.raises(InputError, match=r"unknown key parameters\.0\.logarithmic"):
        Emulator.load(tmp_path / "emulator_toy.pth", parameters=spec)
    with pytest.raises(InputError, match="no spec aries: neither a known set nor a file; did you mean 'ares'"):
        Emulator.load(tmp_path / "emulator_toy.pth", parameters="aries")


def test_files_that_are_missing_or_do_not_fit(files):
    path, _, low, _ = files
    minima = path.with_name("train_mins_mine.npy")
    for content, message in (
        (low[:-1], r"has shape \(7,\), but 8 finite numbers are needed"),
        (np.where(np.arange(8) == 3, np.nan, low), "8 finite numbers are needed"),
        (low + 1000, "number 1 is not below its maximum"),
        (np.array(["a"] * 8), "8 finite numbers are needed"),
    ):
        np.save(minima, content)
        with pytest.raises(InputError, match=message):
            load_kan(path)
    minima.write_bytes(b"no array")
    with pytest.raises(InputError, match="is not a NumPy array"):
        load_kan(path)
    minima.unlink()
    with pytest.raises(InputError, match=r"no file .*train_mins_mine.npy; put 21cmKAN's minima and maxima under"):
        load_kan(path)
    with pytest.raises(InputError, match="no emulator file"):
        load_kan(path.with_name("none.pth"))
    np.save(minima, low)
    with pytest.raises(InputError, match="its only engine is numba"):
        Emulator.load(path, engine="xla")


def test_layers_that_are_not_those_of_a_kan(files, rng):
    path, layers, _, _ = files
    bad = [dict(layer) for layer in layers]
    for changes, message in (
        ({"grid": layers[0]["grid"][:, ::-1].copy()}, "the knots do not ascend"),
        ({"grid": layers[0]["grid"][:3]}, "do not match cubic splines"),
        ({"spline_scaler": layers[0]["spline_scaler"].T.copy()}, "spline_scaler does not have the shape"),
        ({"base_weight": layers[0]["base_weight"] * np.nan}, "a weight is not finite"),
        ({"base_weight": layers[0]["base_weight"][0]}, "base_weight is .* a 2-dimensional array is expected"),
    ):
        bad[0] = layers[0] | changes
        write_torch(path, kan_module(bad))
        with pytest.raises(InputError, match=message):
            load_kan(path)
    write_torch(path, kan_module([layers[0], layers[2]]))
    with pytest.raises(InputError, match=r"the widths of consecutive layers do not match"):
        load_kan(path)
    write_torch(path, Module("efficient_kan.kan", "KAN", training=False))
    with pytest.raises(InputError, match=r"is a efficient_kan.kan.KAN without layers"):
        load_kan(path)
    write_torch(path, {"weights": tensor(rng.standard_normal(3))})
    with pytest.raises(InputError, match="the layers of a 21cmKAN network are expected"):
        load_kan(path)


def test_it_cannot_be_saved_but_distilled(files, tmp_path):
    with pytest.raises(InputError, match="to distil it into one, run lstmfit simulate"):
        Emulator.load(files[0]).save(tmp_path / "mine.h5")
    assert not (tmp_path / "mine.h5").exists()
