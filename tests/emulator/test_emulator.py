"""The emulator object, its file, its errors."""

import contextlib

import h5py
import numpy as np
import pytest
from networks import PARAMETERS, draw_theta, random_network
from scipy.stats import multivariate_normal

from lstmfit import Emulator
from lstmfit.analysis.evaluation import edge_distance, errors_picture, learning_curve
from lstmfit.emulator import store
from lstmfit.emulator.emulator import shipped, shipped_test_set
from lstmfit.emulator.train_emulator import evaluate, evaluation_split, measure
from lstmfit.errors import InputError


@pytest.fixture
def emulator(rng):
    return Emulator(
        *random_network(rng),
        np.linspace(5, 50, 45),
        PARAMETERS,
        errors={"rms": np.ones(45), "covariance": np.eye(45)},
        record={"simulator": "echo21", "n_train": 3},
        name="toy",
    )


def test_save_and_load_give_the_same_emulator(emulator, tmp_path, rng):
    path = tmp_path / "toy.h5"
    emulator.save(path)
    loaded = Emulator.load(path)
    theta = draw_theta(rng, 9)
    np.testing.assert_array_equal(loaded(theta), emulator(theta))
    assert loaded.parameters == PARAMETERS
    assert loaded.record == emulator.record
    assert loaded.checksum == emulator.checksum
    np.testing.assert_array_equal(loaded.errors["covariance"], np.eye(45))
    np.testing.assert_array_equal(loaded.redshifts, emulator.redshifts)
    assert loaded.engine == "numba"
    assert [p.name for p in tmp_path.iterdir()] == ["toy.h5"]


def test_mapping_array_and_batch_agree(emulator, rng):
    theta = draw_theta(rng, 3)
    by_name = {"c": theta[1, 2], "a": theta[1, 0], "b": theta[1, 1]}
    assert emulator(theta).shape == (3, 45)
    np.testing.assert_array_equal(emulator(by_name), emulator(theta[1]))
    np.testing.assert_allclose(emulator(theta)[1], emulator(theta[1]), atol=1e-3)


def test_histories_names_every_output(emulator, rng):
    theta = draw_theta(rng, 4)
    parts = emulator.histories(theta)
    assert {name: part.shape for name, part in parts.items()} == {"signal": (4, 45), "x_HI": (4, 45), "tau": (4,)}
    np.testing.assert_array_equal(parts["signal"], emulator(theta))
    assert emulator.histories(theta[0])["tau"].shape == ()


def test_outside_names_the_parameters(emulator):
    assert emulator.outside([1.0, 0.0, 1.0]) == []
    assert emulator.outside([[1.0, 0.0, 1.0], [1e3, 0.0, 5.0]]) == ["a", "c"]


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ([1.0, 2.0], r"shape \(2,\); expected \(3,\)"),
        ({"a": 1.0, "b": 0.0}, "missing c"),
        ({"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0}, "unknown d"),
    ],
)
def test_wrong_theta_is_refused(emulator, theta, message):
    with pytest.raises(InputError, match=message):
        emulator(theta)


@pytest.mark.parametrize("value", [0, 255])
def test_no_damaged_byte_of_the_header_is_a_traceback(emulator, tmp_path, value):
    """The first look at a file, which tells Keras files from ours, must know all errors of HDF5."""
    path = tmp_path / "emulator.h5"
    emulator.save(path)
    content = path.read_bytes()
    for i in range(256):
        path.write_bytes(content[:i] + bytes([value]) + content[i + 1 :])
        with contextlib.suppress(InputError):
            Emulator.load(path)


def test_damaged_files_are_refused(emulator, tmp_path):
    path = tmp_path / "toy.h5"
    emulator.save(path)
    content = path.read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not a complete emulator file"):
        Emulator.load(tmp_path / "cut.h5")
    with h5py.File(path, "r+") as file:
        file["weights/output_bias"][0, 0] += 1.0
    with pytest.raises(InputError, match="checksum does not match"):
        Emulator.load(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = store.FORMAT_VERSION + 1
    with pytest.raises(InputError, match="format version 2, but this lstmfit reads 1"):
        Emulator.load(path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1.0
    with pytest.raises(InputError, match="not an emulator"):
        Emulator.load(tmp_path / "other.h5")
    with pytest.raises(InputError, match="no emulator file"):
        Emulator.load(tmp_path / "none.h5")
    with pytest.raises(InputError, match="did you mean 'echo21'"):
        Emulator.load("eco21")
    with pytest.raises(InputError, match="engine is 'cuda'; expected numba, numba32, xla, jax or numpy"):
        Emulator.load("echo21", engine="cuda")


def test_a_failed_save_leaves_the_old_file(emulator, tmp_path):
    path = tmp_path / "toy.h5"
    emulator.save(path)
    before = path.read_bytes()
    emulator.record = {"not": {1, 2}}
    with pytest.raises(TypeError):
        emulator.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["toy.h5"]


BARS = {"echo21": 0.04, "echo21_fast": 0.045, "21cmgem": 0.45, "ares": 1.2, "21cmfast": 0.9}
"""Mean relative error in per cent that each shipped emulator stays below, against what it was trained on."""


def test_every_shipped_emulator_is_as_good_as_it_says():
    assert "echo21" in shipped()
    for name in shipped():
        emulator = Emulator.load(name)
        test = shipped_test_set(name)
        errors, summary = measure(emulator, test)
        assert summary.mean_percent <= 1.02 * emulator.record["test"]["mean_percent"]
        assert summary.mean_percent < BARS[name]
        assert errors["rms"].shape == emulator.redshifts.shape
        assert evaluate(emulator, evaluation_split(emulator, name)) == summary


def test_evaluate_in_a_band_and_its_errors(tmp_path):
    emulator = Emulator.load("echo21")
    split = evaluation_split(emulator, "echo21")
    whole, band = evaluate(emulator, split), evaluate(emulator, split, low=50.0, high=100.0)
    assert band.n == whole.n
    assert band.mean_mK != whole.mean_mK
    with pytest.raises(InputError, match="no channel between"):
        evaluate(emulator, split, low=500.0)
    with pytest.raises(InputError, match="split is 'tset'"):
        evaluation_split(emulator, "echo21", split="tset")
    with pytest.raises(InputError, match="no set of signals"):
        evaluation_split(emulator, "echo21", tmp_path / "none.h5")


def test_the_pictures_are_drawn(tmp_path):
    emulator = Emulator.load("echo21")
    split = evaluation_split(emulator, "echo21")
    errors_picture(emulator, split, tmp_path / "e.png")
    history = {"update": [1, 10], "training_percent": [3, 2], "validation_percent": [4, 3]}
    learning_curve({"history": history}, tmp_path / "l.png")
    for name in ("e.png", "l.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    middle = [np.sqrt(p.min * p.max) if p.log else 0.5 * (p.min + p.max) for p in emulator.parameters]
    edge = [middle[0], *[p.max for p in emulator.parameters[1:]]]
    np.testing.assert_allclose(edge_distance(emulator, np.array([middle, edge])), [1.0, 0.0], atol=1e-9)


def test_a_teachers_own_error_is_part_of_the_error():
    """`emulator_error: true` of a distilled emulator: against its teacher, and the teacher's own where it is known."""
    from lstmfit.config import load
    from lstmfit.problem import build

    emulator = Emulator.load("21cmgem")
    against, own = emulator.errors["covariance"], emulator.errors["teacher_rms"]
    np.testing.assert_allclose(emulator.error_covariance, against + np.diag(own**2))
    assert np.sqrt(np.mean(own**2)) == pytest.approx(0.0032 * 124, rel=0.1)
    alone = Emulator.load("echo21")
    assert alone.error_covariance is alone.errors["covariance"]
    run = load("dj24_21cmgem_5mK")
    run = run.model_copy(update={"likelihood": run.with_spectrum_blocks(emulator_error=True)})
    with_error, without = build(run), build(load("dj24_21cmgem_5mK"))
    theta = np.array([with_error.truth[name] for name in with_error.names])
    values = [problem.loglikelihood(theta)[0] for problem in (with_error, without)]
    # The mock is on the emulator's own channels, by frequency.
    order = np.argsort(without.data["global_signal"].frequency)[::-1]
    residual = without.data["global_signal"].temperature[order] - emulator(theta)
    expected = [
        multivariate_normal.logpdf(residual, cov=25.0 * np.eye(451) + extra)
        for extra in (emulator.error_covariance, 0.0)
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(set(shipped()) - {"echo21", "echo21_fast"}))
def test_a_distilled_emulator_says_where_it_comes_from(name):
    emulator = Emulator.load(name)
    teacher = emulator.record["teacher"]
    assert {"name", "reference", "source", "licence", "published_error"} <= set(teacher)
    assert emulator.record["simulator"] == teacher["name"]
