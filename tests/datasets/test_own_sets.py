"""Sets as people hold them: arrays named by a spec, grids of any kind, globalemu's text, hostile files."""

import io
import json
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from helpers import lstmfit
from networks import write_gem

from lstmfit.constants import NU21, redshift_to_frequency
from lstmfit.datasets.signal_sets import drawn_splits, load_signals, write_test_set
from lstmfit.datasets.specs import SignalSpec, find_spec
from lstmfit.emulator.train_emulator import evaluation_split, train_emulator
from lstmfit.emulator.training import Recipe
from lstmfit.errors import InputError

Z = np.linspace(6.0, 30.0, 25)
COLUMNS = [{"name": "a", "log": True, "unit": "K"}, {"name": "b"}]
SPEC = {"parameters": COLUMNS, "redshifts": "z", "theta": "X", "signal": "T"}
DOCS = Path(__file__).parents[2] / "docs" / "emulator.md"


def arrays_of(rng, n=40, names=("X", "T")):
    """Parameters and signals; the signal of a channel is a known function of its redshift."""
    theta = np.column_stack([10 ** rng.uniform(-2, 2, n), rng.uniform(-1, 1, n)])
    return {names[0]: theta, names[1]: signals_at(theta, Z)}


def signals_at(theta, z):
    return -100 * np.exp(-0.5 * ((z - 17 - 3 * theta[:, 1:]) / 4) ** 2) * (1 + 0.1 * np.log10(theta[:, :1]))


def spec(**changes):
    return SignalSpec.model_validate({k: v for k, v in (SPEC | changes).items() if v is not None})


def write_h5(path, arrays, **attributes):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs.update(attributes)


WRITERS = {"set.npz": lambda path, arrays: np.savez_compressed(path, **arrays), "set.h5": write_h5}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    """Write arrays into one of the two formats, and give the path."""

    def write(arrays):
        WRITERS[request.param](tmp_path / request.param, arrays)
        return tmp_path / request.param

    return write


def check_channels(data):
    """Each channel has the signal of its redshift, in every split."""
    np.testing.assert_allclose(data.redshifts, Z, rtol=1e-12)
    for split in (data.train, data.val, data.test):
        np.testing.assert_allclose(split.signal, signals_at(split.theta, Z), rtol=1e-12)


def test_a_file_without_splits_is_split(write, rng):
    arrays = arrays_of(rng)
    path = write(arrays | {"z": Z, "label": np.arange(3)})
    data = load_signals(path, spec=spec())
    assert (len(data.train), len(data.val), len(data.test)) == (30, 5, 5)
    check_channels(data)
    rows = np.concatenate([data.train.theta, data.val.theta, data.test.theta])
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(arrays["X"], axis=0))
    assert [(p.name, p.log, p.unit) for p in data.parameters] == [("a", True, "K"), ("b", False, "")]
    assert data.record == {"set": path.name}
    # The split of one call is that of any other.
    alone = load_signals(path, ("test",), spec=spec())
    np.testing.assert_array_equal(alone.test.theta, data.test.theta)
    assert len(alone.train) == 0


def test_the_split_that_is_made_never_changes():
    split = drawn_splits(24)
    assert (split["val"].tolist(), split["test"].tolist()) == ([2, 13, 21], [3, 11, 20])
    for n in (1, 7, 8, 1000):
        np.testing.assert_array_equal(np.sort(np.concatenate([*drawn_splits(n).values()])), np.arange(n))


def test_splits_of_the_file_are_kept(write, rng):
    arrays = {"z": Z}
    sizes = {"train": 24, "test": 4}
    for split, n in sizes.items():
        arrays |= arrays_of(rng, n, (f"X_{split}", f"T_{split}"))
    data = load_signals(write(arrays), spec=spec(theta="X_{split}", signal="T_{split}"))
    assert (len(data.train), len(data.val), len(data.test)) == (21, 3, 4)
    np.testing.assert_array_equal(data.test.theta, arrays["X_test"])
    np.testing.assert_array_equal(data.val.theta, arrays["X_train"][-3:])


@pytest.mark.parametrize(
    ("grid", "keys"),
    [
        (Z[::-1], {}),
        (redshift_to_frequency(Z), {"redshifts": None, "frequency": "z_"}),
        (redshift_to_frequency(Z[::-1]), {"redshifts": None, "frequency": "z_"}),
        (1e6 * redshift_to_frequency(Z), {"redshifts": None, "frequency": "z_", "frequency_unit": "Hz"}),
        (1e-3 * redshift_to_frequency(Z[::-1]), {"redshifts": None, "frequency": "z_", "frequency_unit": "GHz"}),
    ],
)
def test_channels_are_sorted_with_their_signals(write, rng, grid, keys):
    arrays = arrays_of(rng)
    z = Z if grid[0] in (Z[0], *(unit * redshift_to_frequency(Z[0]) for unit in (1, 1e6, 1e-3))) else Z[::-1]
    arrays["T"] = signals_at(arrays["X"], z)
    arrays["xe"] = np.tile(z, (40, 1)) + arrays["X"][:, 1:]
    arrays["depth"] = arrays["X"][:, 1].copy()
    outputs = {"x_HI": "xe", "tau": "depth"}
    data = load_signals(write(arrays | {"z": grid, "z_": grid}), spec=spec(outputs=outputs, **keys))
    check_channels(data)
    for split in (data.train, data.test):
        np.testing.assert_allclose(split.extras["x_HI"], Z + split.theta[:, 1:])
        np.testing.assert_array_equal(split.extras["tau"], split.theta[:, 1])
    assert (data.layout.histories, data.layout.scalars) == (("signal", "x_HI"), ("tau",))


@pytest.mark.parametrize(
    "keys",
    [
        {"redshifts": Z.tolist()},
        {"redshifts": {"min": 6, "max": 30, "n": 25}},
        {"redshifts": None, "frequency": redshift_to_frequency(Z).tolist()},
        {"redshifts": None, "frequency": (1e3 * redshift_to_frequency(Z)).tolist(), "frequency_unit": "kHz"},
    ],
)
def test_the_grid_of_a_spec(write, rng, keys):
    check_channels(load_signals(write(arrays_of(rng)), spec=spec(**keys)))


def test_evenly_spaced_frequencies(write, rng):
    arrays, mhz = arrays_of(rng), np.linspace(50, 200, 25)
    arrays["T"] = signals_at(arrays["X"], NU21 / mhz - 1)
    keys = {"redshifts": None, "frequency": {"min": 50, "max": 200, "n": 25}}
    data = load_signals(write(arrays), spec=spec(**keys))
    np.testing.assert_allclose(redshift_to_frequency(data.redshifts), mhz[::-1])
    np.testing.assert_allclose(data.test.signal, signals_at(data.test.theta, data.redshifts))


def test_signals_in_kelvin_and_numbers_of_other_machines(write, rng):
    arrays = {name: array.astype(">f8") for name, array in arrays_of(rng).items()}
    arrays["T"] /= 1000
    path = write(arrays | {"z": Z})
    data = load_signals(path, spec=spec(signal_unit="K"))
    np.testing.assert_allclose(data.test.signal, signals_at(data.test.theta, Z), rtol=1e-6)
    assert data.test.signal.dtype.isnative
    with pytest.raises(InputError, match=r"which looks like K, but mK is expected; set the unit with .*signal_unit"):
        load_signals(path, spec=spec())


@pytest.mark.parametrize(
    ("grid", "keys", "message"),
    [
        (1e6 * redshift_to_frequency(Z), {}, "its redshifts run from 4.58195e.07 to 2.02915e.08; this looks like a "
         "frequency in Hz; in the spec, give it as frequency with frequency_unit: Hz"),
        (1e6 * redshift_to_frequency(Z), {"redshifts": None, "frequency": "z_"},
         "frequencies run from .* MHz; this looks like Hz; set frequency_unit: Hz in the spec"),
        (1e3 * redshift_to_frequency(Z), {"redshifts": None, "frequency": "z_"}, "looks like kHz; set frequency_unit"),
        (1e-3 * redshift_to_frequency(Z), {"redshifts": None, "frequency": "z_"}, "looks like GHz; set frequency_unit"),
        (redshift_to_frequency(Z), {"redshifts": None, "frequency": "z_", "frequency_unit": "Hz"},
         "frequencies run from 45.8195 to 202.915 Hz; this looks like MHz"),
        (np.linspace(2e3, 3e3, 25), {"redshifts": None, "frequency": "z_", "frequency_unit": "MHz"},
         "looks like kHz"),
        (Z, {"redshifts": None, "frequency": "z_"}, "looks like redshifts; set redshifts instead of frequency"),
        (-Z, {}, "its redshifts run from -30 to -6; expected 0 to 1500"),
        (np.roll(Z, 3), {}, "neither ascending nor descending, from channel 2 to 3; sort it"),
        (np.r_[6.0, Z[:-1]], {}, "neither ascending nor descending, from channel 0 to 1"),
        (Z[:1], {}, "its grid has length 1, but at least two channels are needed"),
        (np.r_[np.nan, Z[1:]], {}, "z has 1 NaN or infinite values"),
        (Z[:-1], {}, r"its signals \(40, 25\); expected \(n, 2\) and \(n, 24\)"),
        (Z[None], {}, r"z has shape \(1, 25\); expected \(n,\)"),
        (Z, {"redshifts": "frequency_MHz"}, "the name frequency_MHz indicates a frequency; set frequency: freq"),
        (Z, {"redshifts": None, "frequency": "z"}, "the name z indicates a redshift; set redshifts: z"),
        (Z, {"redshifts": None, "frequency": "freq_Hz"}, "the name freq_Hz indicates Hz, but the spec has MHz; set "
         "frequency_unit: Hz"),
        (Z, {"redshifts": None}, r"has no grid; add redshifts \(or frequency\) to .* the name of an array"),
        (Z, {"redshifts": "zs"}, "zs is missing; available are"),
        (Z, {"theta": "Y"}, "Y is missing; available are"),
        (Z, {"theta": "Y", "signal": "U"}, "no arrays Y and U; the file has"),
        (Z, {"theta": "Y_{split}", "signal": "U_{split}"}, "no arrays .* with train, val or test for {split}"),
        (Z, {"theta": None, "signal": None}, "theta and signal are missing in the spec; name their arrays"),
        (Z, {"parameters": [*COLUMNS, {"name": "c"}]}, r"\(40, 2\) and its signals .* expected \(n, 3\)"),
        (Z, {"outputs": {"tau": "z"}}, r"z has shape|tau has shape \(25,\); expected \(40,\)"),
        (Z, {"outputs": {"tau": "cube"}}, r"output tau has shape \(40, 2, 2\); expected \(n,\) or \(n, 25\)"),
        (Z, {"outputs": {"tau": "words"}}, "words has type .*, but numbers are expected"),
    ],
)  # fmt: skip
def test_what_contradicts_the_spec_is_refused(write, rng, grid, keys, message):
    more = {"z": grid, "z_": grid, "cube": np.zeros((40, 2, 2)), "words": np.array([b"a"] * 40)}
    path = write(arrays_of(rng) | more)
    before = path.read_bytes()
    with pytest.raises(InputError, match=message):
        load_signals(path, spec=spec(**keys))
    assert path.read_bytes() == before


def test_redshifts_that_may_be_frequencies_are_warned_of(write, rng):
    path = write(arrays_of(rng) | {"z": np.linspace(50, 200, 25)})
    with pytest.warns(UserWarning, match="run from 50 to 200; if these are MHz, set frequency instead of redshifts"):
        load_signals(path, spec=spec())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SPEC | {"frequency": "nu"}, "redshifts and frequency are both given; give one of them"),
        (SPEC | {"frequency_unit": "Hz"}, "frequency_unit is given without frequency"),
        (SPEC | {"frequency_unit": "THz"}, "frequency_unit is 'THz'"),
        (SPEC | {"signal_unit": "uK"}, "signal_unit is 'uK'"),
        (SPEC | {"theta": "X_{split}"}, "{split} is in theta, but not in all of theta, signal; use it in all or none"),
        (SPEC | {"outputs": {"tau": "t_{split}"}}, "{split} is in tau, but not in all of theta, signal, tau"),
        (SPEC | {"outputs": {"signal": "t"}}, "the name signal is reserved"),
        (SPEC | {"outputs": {"a b": "t"}}, "output 'a b': this is not a valid name"),
        ({"parameters": COLUMNS, "theta": "X"}, "signal is missing; give both arrays or neither"),
        (SPEC | {"names": "a"}, "unknown key names"),
    ],
)
def test_mistakes_in_a_spec(tmp_path, content, message):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=message):
        find_spec(tmp_path / "spec.yaml", "spec")


def test_where_a_spec_does_not_belong(tmp_path, rng):
    write_gem(tmp_path / "gem.h5", rng)
    data = load_signals(tmp_path / "gem.h5")
    same = load_signals(tmp_path / "gem.h5", spec="21cmgem")
    np.testing.assert_array_equal(same.train.signal, data.train.signal)
    assert same.parameters == data.parameters
    write_test_set(tmp_path / "named.h5", data)
    with pytest.raises(InputError, match="defines its own parameters; remove the spec"):
        load_signals(tmp_path / "named.h5", spec="21cmgem")
    with pytest.raises(InputError, match="spec: 21cmgm is not a known set or a file; did you mean"):
        load_signals(tmp_path / "gem.h5", spec="21cmgm")
    with h5py.File(tmp_path / "gem.h5", "r+") as file:
        file.attrs["signal_unit"] = "mK"
    with pytest.raises(InputError, match="attribute signal_unit is mK, but the spec has K; correct one"):
        load_signals(tmp_path / "gem.h5", spec=find_spec("21cmgem").model_copy(update={"signal_unit": "K"}))
    np.savez(tmp_path / "gem.npz", par_test=data.test.theta, signal_test=data.test.signal)
    np.testing.assert_array_equal(load_signals(tmp_path / "gem.npz").test.signal, data.test.signal)
    np.savez(tmp_path / "mine.npz", X=1)
    with pytest.raises(InputError, match=r"it has X; expected par_train, .*for other names, add --spec"):
        load_signals(tmp_path / "mine.npz")


def test_our_own_layout_with_a_grid_in_hz(tmp_path, rng):
    write_gem(tmp_path / "gem.h5", rng)
    write_test_set(tmp_path / "named.h5", load_signals(tmp_path / "gem.h5"))
    with h5py.File(tmp_path / "named.h5", "r+") as file:
        file["redshifts"][...] = 1e6 * redshift_to_frequency(file["redshifts"][()])
    with pytest.raises(InputError, match=r"looks like a frequency in Hz; write redshifts, 1420.4058 MHz / frequency"):
        load_signals(tmp_path / "named.h5")


def test_ranges_that_a_spec_gives_in_part(write, rng):
    columns = [{"name": "a", "log": True, "min": 1e-3}, {"name": "b", "max": 2.0}]
    data = load_signals(write(arrays_of(rng) | {"z": Z}), spec=spec(parameters=columns))
    a, b = data.parameters
    assert (a.min, b.max) == (1e-3, 2.0)
    assert (a.max, b.min) == (data.train.theta[:, 0].max(), data.train.theta[:, 1].min())


# ---------------------------------------------------------------- globalemu


@pytest.fixture
def globalemu(tmp_path, rng):
    """A training set as globalemu's `process` reads it."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split, n in (("train", 24), ("test", 4)):
        arrays = arrays_of(rng, n)
        np.savetxt(folder / f"{split}_data.txt", arrays["X"])
        np.savetxt(folder / f"{split}_labels.txt", arrays["T"])
    return folder


def test_the_text_layout_of_globalemu(globalemu):
    grid = spec(redshifts={"min": 6, "max": 30, "n": 25}, theta=None, signal=None)
    data = load_signals(globalemu, spec=grid)
    assert (len(data.train), len(data.val), len(data.test)) == (21, 3, 4)
    check_channels(data)
    # z.txt, which globalemu writes, is the grid of the files themselves.
    np.savetxt(globalemu / "z.txt", Z)
    check_channels(load_signals(globalemu, spec=spec(redshifts=None, theta=None, signal=None)))
    np.savetxt(globalemu / "z.txt", Z + 1)
    np.testing.assert_allclose(load_signals(globalemu, spec=grid).redshifts, Z + 1)


def test_what_is_wrong_with_a_folder_of_globalemu(globalemu):
    plain = spec(redshifts=None, theta=None, signal=None)
    with pytest.raises(InputError, match="not name their parameters; add --spec 21cmgem, --spec ares, or"):
        load_signals(globalemu)
    with pytest.raises(InputError, match=r"has no grid; add redshifts .* 451}, a list$"):
        load_signals(globalemu, spec=plain)
    np.savetxt(globalemu / "z.txt", 1e6 * redshift_to_frequency(Z))
    with pytest.raises(InputError, match=r"z.txt: its redshifts run from .* looks like a frequency in Hz; write redsh"):
        load_signals(globalemu, spec=plain)
    np.savetxt(globalemu / "z.txt", Z)
    (globalemu / "test_labels.txt").unlink()
    with pytest.raises(InputError, match=r"has test_data.txt, but no test_labels.txt; add this file"):
        load_signals(globalemu, spec=plain)
    (globalemu / "test_labels.txt").write_text("1 2\n3\n")
    with pytest.raises(InputError, match=r"test_labels.txt is not a table of numbers \(.*\); copy it again"):
        load_signals(globalemu, spec=plain)
    (globalemu / "test_labels.txt").write_text("")
    with pytest.raises(InputError, match=r"of test have shape \(4, 2\) and its signals \(0, 1\); expected"):
        load_signals(globalemu, spec=plain)


# ---------------------------------------------------------------- hostile files


class Bomb:
    """Pickled into an object array; unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def rewritten(path, name, content):
    """Replace a member of an archive by other bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in (members | {name: content}).items():
            archive.writestr(key, value)


def header(shape, dtype="<f8", version=1):
    """Header of an .npy file that declares a shape, with no data after it."""
    stream = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    write = np.lib.format.write_array_header_1_0 if version == 1 else np.lib.format.write_array_header_2_0
    write(stream, fields)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((10**12, 2)) + bytes(64), r"X is|parameters of all have shape \(1000000000000, 2\)"),
        (header((40, 2)), r"X declares 640 bytes but has 0"),
        (header((40, 2)) + bytes(5000), r"X declares 640 bytes but has 5e\+03"),
        (header((40, 2), "|O"), "X has type object, but numbers are expected"),
        (header((40, 2), "<c16"), "X has type complex128, but numbers are expected"),
        (header((40, 2), [("a", "<f8")], 2), "X has type .*, but numbers are expected"),
        (header((-40, 2)), r"parameters of all have shape \(-40, 2\)|not a complete .npz file"),
        (b"\x93NUMPY\x03\x00" + header((40, 2))[8:], "X is an .npy array of version 3"),
        (b"\x93NUMPY\x01\x00\xff\xff{'descr'", "is not a complete .npz file"),
        (b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').getcwd() ".ljust(32), "is not a complete .npz file"),
        (b"no array", "is not a complete .npz file"),
    ],
)
def test_hostile_members(tmp_path, rng, content, message):
    path = tmp_path / "set.npz"
    np.savez(path, z=Z, **arrays_of(rng))
    rewritten(path, "X.npy", content)
    with pytest.raises(InputError, match=message):
        load_signals(path, spec=spec())


def test_huge_members_are_refused_before_they_are_read(tmp_path, rng):
    """Zeros compress a thousandfold: 320 MB in an archive of 0.3 MB."""
    path, n = tmp_path / "set.npz", 40_000_000
    np.savez(path, **arrays_of(rng))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("z.npy", "w") as member:
        member.write(header((n,)))
        for _ in range(8):
            member.write(bytes(n))
    with pytest.raises(InputError, match=r"z declares 3.2e\+08 bytes but has 3.2e\+08 \(compressed 3.11e\+05"):
        load_signals(path, spec=spec())


def test_no_object_is_unpickled(tmp_path, rng):
    for name in ("X", "T", "z"):
        arrays = arrays_of(rng) | {"z": Z}
        arrays[name] = np.array([Bomb(tmp_path / "made")] * arrays[name].size, dtype=object).reshape(arrays[name].shape)
        np.savez(tmp_path / "set.npz", **arrays)
        with pytest.raises(InputError, match=f"{name} has type object, but numbers are expected"):
            load_signals(tmp_path / "set.npz", spec=spec())
    assert not (tmp_path / "made").exists()


def test_a_damaged_archive(tmp_path, rng):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, z=Z, **arrays_of(rng))
    whole = path.read_bytes()
    for cut in (5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"is not a complete .npz file \(.*\); copy or create it again"):
            load_signals(path, spec=spec())
    refused = 0
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            load_signals(path, spec=spec())
        except InputError:
            refused += 1
    assert refused > 50


def test_links_on_the_way_to_a_dataset_are_refused(tmp_path, rng):
    write_h5(tmp_path / "other.h5", {"group/X": arrays_of(rng)["X"]})
    write_h5(tmp_path / "set.h5", arrays_of(rng) | {"z": Z, "ours/X": arrays_of(rng)["X"]})
    with h5py.File(tmp_path / "set.h5", "r+") as file:
        file["there"] = h5py.ExternalLink("other.h5", "/group")
    assert len(load_signals(tmp_path / "set.h5", spec=spec(theta="ours/X")).test) == 5
    with pytest.raises(InputError, match="there/X is a link; store the data in the file itself"):
        load_signals(tmp_path / "set.h5", spec=spec(theta="there/X"))


# ---------------------------------------------------------------- training, evaluation, documentation


def test_train_and_evaluate_in_python(tmp_path, rng):
    """Descending frequencies all the way to an emulator, whose errors are those on the channels themselves."""
    path = tmp_path / "set.npz"
    arrays = arrays_of(rng, 200)
    np.savez(path, nu=redshift_to_frequency(Z), **arrays)
    mine = spec(redshifts=None, frequency="nu")
    sizes = {"units": 8, "steps": 5, "layers": 1, "encoder": ()}
    emulator = train_emulator(load_signals(path, spec=mine), Recipe(updates=4, batch=16, validate_every=2), sizes)
    np.testing.assert_allclose(emulator.redshifts, Z)
    for split, n in {"test": 25, "all": 200}.items():
        data = evaluation_split(emulator, "mine", path, split, mine)
        assert len(data) == n
        np.testing.assert_allclose(data.signal, signals_at(data.theta, Z))
    with pytest.raises(InputError, match="mine have different redshift grids"):
        evaluation_split(emulator, "mine", path, "test", spec(redshifts={"min": 5, "max": 30, "n": 25}))
    other = [COLUMNS[0], {"name": "c"}]
    with pytest.raises(InputError, match="has parameters a, c, but mine has a, b"):
        evaluation_split(emulator, "mine", path, "test", spec(redshifts=Z.tolist(), parameters=other))
    with pytest.raises(InputError, match="split is 'every'; expected one of train, val, test, all"):
        evaluation_split(emulator, "mine", path, "every", mine)
    with pytest.raises(InputError, match="spec ares is given without the set of signals it describes; add the set"):
        evaluation_split(emulator, "mine", spec="ares")


def documented():
    """Spec of the section on own signals, and its commands."""
    section = DOCS.read_text(encoding="utf-8").split("## Your own signals")[1].split("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```", section, re.M | re.S)
    (text,) = [block for block in blocks if block.startswith("parameters:")]
    commands = [line.split("#")[0].split() for line in blocks[0].splitlines() if line.startswith("lstmfit")]
    return text, commands


@pytest.mark.slow
@pytest.mark.ci
def test_the_documented_spec_on_the_command_line(tmp_path, rng):
    text, commands = documented()
    (tmp_path / "spec.yaml").write_text(text)
    mine = SignalSpec.model_validate(yaml.safe_load(text))
    mhz = np.linspace(50, 200, 31)
    theta = np.column_stack([10 ** rng.uniform(-2, 2, 400), rng.uniform(-1, 1, 400)])
    np.savez(
        tmp_path / "mine.npz", **{
            mine.theta: theta, mine.signal: signals_at(theta, NU21 / mhz - 1) / 1000, mine.frequency: 1e6 * mhz,
            mine.outputs["tau"]: theta[:, 1],
        },
    )  # fmt: skip
    assert [command[1] for command in commands] == ["train", "evaluate"]
    train = ["--updates", "4", "--units", "8", "--steps", "2", "--encoder", "8"]
    small = {"train": train, "evaluate": ["--json", "errors.json"]}
    for command in commands:
        done = lstmfit(*command[1:], *small[command[1]], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert errors["outputs"]["tau"]["rms"] > 0
    with h5py.File(tmp_path / "mine_test.h5") as file:
        assert file["signal_test"].shape == (50, 31)
    done = lstmfit("train", "mine.npz", "-o", "again.h5", cwd=tmp_path)
    assert done.returncode == 2
    assert "for other names, add --spec" in done.stderr
    assert not (tmp_path / "again.h5").exists()
