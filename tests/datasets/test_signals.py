"""Sets of signals: every public layout, and what cannot be trained on."""

import h5py
import numpy as np
import pytest
from networks import write_gem

from lstmfit.datasets.signal_sets import load_signals, write_test_set
from lstmfit.errors import InputError


def test_the_21cmgem_layout(tmp_path, rng):
    write_gem(tmp_path / "dataset_21cmVAE.h5", rng)
    data = load_signals(tmp_path / "dataset_21cmVAE.h5")
    assert [p.name for p in data.parameters] == ["fstar", "Vc", "fX", "tau", "alpha", "nu_min", "Rmfp"]
    assert [p.log for p in data.parameters] == [True] * 3 + [False] * 4
    assert (len(data.train), len(data.val), len(data.test)) == (40, 8, 8)
    assert data.train.theta[0, 2] == data.parameters[2].zero == 1e-6
    assert data.parameters[1].min == data.train.theta[:, 1].min()
    np.testing.assert_allclose(data.redshifts, np.linspace(5, 50, 451))
    assert data.record == {"set": "21cmGEM"}


def test_the_ares_layout(tmp_path, rng):
    with h5py.File(tmp_path / "dataset_ARES.h5", "w") as file:
        for split, n in (("train", 12), ("val", 4), ("test", 4)):
            file[f"{split}_data"] = np.column_stack(
                [10 ** rng.uniform(36, 44, n), *rng.uniform(0.1, 0.9, (7, n))]
            )
            file[f"{split}_labels"] = rng.normal(size=(n, 449))
    data = load_signals(tmp_path / "dataset_ARES.h5")
    assert [p.name for p in data.parameters][:3] == ["c_X", "f_esc", "T_min"]
    assert data.redshifts.shape == (449,)
    np.testing.assert_allclose(data.redshifts[[0, -1]], [5.1, 49.9])
    assert (len(data.train), len(data.val), len(data.test)) == (12, 4, 4)


def test_the_plain_text_layout_takes_its_tail_for_validation(tmp_path, rng):
    for split, n in (("train", 16), ("test", 4)):
        np.savetxt(tmp_path / f"Par_{split}_21cmGEM.txt", rng.uniform(0.1, 1.0, (n, 7)))
        np.savetxt(tmp_path / f"T21_{split}_21cmGEM.txt", rng.normal(size=(n, 451)))
    data = load_signals(tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (14, 2, 4)


def test_a_449_channel_set_trains(tmp_path, rng):
    from lstmfit.emulator.train_emulator import train_emulator
    from lstmfit.emulator.training import Recipe

    with h5py.File(tmp_path / "a.h5", "w") as file:
        for split, n in (("train", 64), ("val", 16), ("test", 16)):
            file[f"{split}_data"] = rng.uniform(0.1, 0.9, (n, 8))
            file[f"{split}_labels"] = rng.normal(size=(n, 449))
    sizes = {"units": 8, "steps": 4, "layers": 1, "encoder": ()}
    emulator = train_emulator(load_signals(tmp_path / "a.h5"), Recipe(updates=4, batch=16, validate_every=2), sizes)
    assert emulator(np.full(8, 0.5)).shape == (449,)
    assert emulator.architecture.patch == 113


def test_a_test_set_reads_back(tmp_path, rng):
    write_gem(tmp_path / "g.h5", rng)
    data = load_signals(tmp_path / "g.h5")
    write_test_set(tmp_path / "t.h5", data, 5)
    back = load_signals(tmp_path / "t.h5")
    assert (len(back.train), len(back.test)) == (0, 5)
    np.testing.assert_allclose(back.test.signal, data.test.signal[:5], atol=1e-4)
    np.testing.assert_array_equal(back.test.theta, data.test.theta[:5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, s: s.__setitem__((3, 4), np.nan), "signal of train has NaN or infinite values in 1 rows"),
        (lambda p, s: p.__setitem__((slice(None), 4), 1.0), "parameter alpha is 1 in every row"),
        (lambda p, s: p.__setitem__(5, p[6]), "1 rows of train repeat"),
        (lambda p, s: p.__setitem__((2, 0), -1.0), "fstar of train is -1, but log10 of it is taken"),
    ],
)
def test_sets_that_cannot_be_trained_on(tmp_path, rng, change, message):
    write_gem(tmp_path / "g.h5", rng)
    with h5py.File(tmp_path / "g.h5", "r+") as file:
        theta, signal = file["par_train"][()], file["signal_train"][()]
        change(theta, signal)
        file["par_train"][...], file["signal_train"][...] = theta, signal
    with pytest.raises(InputError, match=message):
        load_signals(tmp_path / "g.h5")


def test_bad_layouts_are_refused(tmp_path, rng):
    path = tmp_path / "g.h5"
    write_gem(path, rng)
    with h5py.File(path, "r+") as file:
        del file["signal_train"]
        file["signal_train"] = rng.normal(size=(40, 400))
    with pytest.raises(InputError, match=r"\(40, 7\) and its signals \(40, 400\); expected \(n, 7\) and \(n, 451\)"):
        load_signals(path)
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="it has x; expected par_train"):
        load_signals(path)
    path.write_bytes(b"no hdf5")
    with pytest.raises(InputError, match=r"not a whole HDF5 or .npz file"):
        load_signals(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no Par_train_21cmGEM\.txt"):
        load_signals(tmp_path / "empty")
    with pytest.raises(InputError, match="no set of signals"):
        load_signals(tmp_path / "none.h5")


def test_a_grid_that_is_not_ascending_is_refused(tmp_path, rng):
    write_gem(tmp_path / "g.h5", rng)
    write_test_set(tmp_path / "t.h5", load_signals(tmp_path / "g.h5"))
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        file["redshifts"][...] = file["redshifts"][()][::-1]
    with pytest.raises(InputError, match="not ascending"):
        load_signals(tmp_path / "t.h5")
