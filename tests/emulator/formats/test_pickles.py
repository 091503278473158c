"""The restricted reader: what strangers' pickles can try, and that nothing of it happens."""

import collections
import io
import os
import pickle
import pickletools
import zipfile

import numpy as np
import pytest
from torch_files import Call, Module, Named, tensor, write_torch

from lstmfit import Emulator
from lstmfit.emulator.formats.pickles import is_torch, read_plain, read_torch
from lstmfit.errors import InputError


class Attack:
    """Runs a shell command when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def raw(*operations):
    """A pickle from opcodes by name with what follows them."""
    codes = {op.name: op.code.encode("latin-1") for op in pickletools.opcodes}
    return b"".join(codes[name] + argument for name, argument in operations) + b"."


ATTACKS = {
    "reduce": raw(("GLOBAL", b"os\nsystem\n"), ("UNICODE", b"touch %s\n"), ("TUPLE1", b""), ("REDUCE", b"")),
    "inst": b"(V" + b"touch %s\n" + b"ios\nsystem\n.",
    "obj": raw(("MARK", b""), ("GLOBAL", b"os\nsystem\n"), ("UNICODE", b"touch %s\n"), ("OBJ", b"")),
    "stack_global": raw(("PROTO", b"\x04"), ("UNICODE", b"os\n"), ("UNICODE", b"system\n"), ("STACK_GLOBAL", b""),
                        ("UNICODE", b"touch %s\n"), ("TUPLE1", b""), ("REDUCE", b"")),
    "eval": raw(("GLOBAL", b"builtins\neval\n"), ("UNICODE", b"open('%s', 'w')\n"), ("TUPLE1", b""), ("REDUCE", b"")),
    "getattr": raw(("GLOBAL", b"builtins\ngetattr\n"), ("GLOBAL", b"os\nsystem\n")),
    "numpy": raw(("GLOBAL", b"numpy.testing._private.utils\nrunstring\n")),
    "newobj": raw(("GLOBAL", b"subprocess\nPopen\n"), ("UNICODE", b"touch %s\n"), ("TUPLE1", b""), ("NEWOBJ", b"")),
    "extension": raw(("EXT1", b"\x01")),
    "dotted": raw(("PROTO", b"\x04"), ("UNICODE", b"collections\n"), ("UNICODE", b"OrderedDict.__init__.__globals__\n"),
                  ("STACK_GLOBAL", b"")),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("kind", ["plain", "torch"])
def test_no_code_is_run(name, kind, tmp_path):
    target, path = tmp_path / "attacked", tmp_path / "file"
    content = ATTACKS[name].replace(b"%s", str(target).encode())
    if kind == "plain":
        path.write_bytes(content)
        read = read_plain
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", content)
        read = read_torch
    with pytest.raises(InputError, match=r"no code is run|cannot be read as a pickle"):
        read(path)
    assert not target.exists()


def test_the_attacks_would_work_on_pickle(tmp_path):
    """So that the test above tests something."""
    target = tmp_path / "attacked"
    for name in ("reduce", "inst", "obj", "stack_global", "eval"):
        pickle.loads(ATTACKS[name].replace(b"%s", str(target).encode()))
        assert target.exists(), name
        target.unlink()


def test_objects_that_python_pickles(tmp_path):
    for content in (Attack(tmp_path / "attacked"), np.arange(3), np.float64(1), pickle.Pickler, os.system):
        (tmp_path / "settings.pkl").write_bytes(pickle.dumps({"AFB": content}))
        with pytest.raises(InputError, match="no code is run"):
            read_plain(tmp_path / "settings.pkl")
    assert not (tmp_path / "attacked").exists()


def test_plain_values_come_back(tmp_path):
    content = {"AFB": True, "resampling": False, "n": [1, 2.5, "text", None], "bytes": b"abc"}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "settings.pkl").write_bytes(pickle.dumps(content, protocol))
        if protocol > 2:
            assert read_plain(tmp_path / "settings.pkl") == content
    with pytest.raises(InputError, match="no file"):
        read_plain(tmp_path / "none.pkl")


def test_tensors_come_back(tmp_path, rng):
    a, b = rng.standard_normal((4, 3)), rng.standard_normal(5).astype(np.float32)
    content = collections.OrderedDict(a=tensor(a), turned=tensor(a, (3, 4), (1, 3)), part=tensor(b, (2,), (2,), 1),
                                      empty=tensor(b, (0, 2), (1, 1)))  # fmt: skip
    write_torch(tmp_path / "weights.pth", content)
    got = read_torch(tmp_path / "weights.pth")
    np.testing.assert_array_equal(got["a"], a)
    np.testing.assert_array_equal(got["turned"], a.T)
    np.testing.assert_array_equal(got["part"], b[1:4:2])
    assert got["empty"].shape == (0, 2)
    assert got["part"].dtype == np.float32
    got["a"][0, 0] = 7.0
    assert is_torch(tmp_path / "weights.pth")


def test_modules_are_refused_unless_they_are_known(tmp_path):
    path = tmp_path / "emulator_mine.pth"
    write_torch(path, Module("my.package", "Network", training=False))
    with pytest.raises(InputError, match=r"refers to my.package.Network, but only arrays and plain values are read"):
        Emulator.load(path)
    got = read_torch(path, ["my.package.Network"])
    assert (got.kind, got.state) == ("my.package.Network", {"training": False})
    write_torch(path, {"weights": Call(Named("posix", "system"), (f"touch {tmp_path / 'attacked'}",))})
    with pytest.raises(InputError, match=r"refers to posix.system"):
        Emulator.load(path)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"shape": (10**6, 10**6), "strides": (0, 0)}, "in a storage of 12 numbers"),
        ({"shape": (13,), "strides": (1,)}, "in a storage of 12 numbers"),
        ({"shape": (3,), "strides": (6,)}, "in a storage of 12 numbers"),
        ({"shape": (3,), "strides": (1,), "offset": 10}, "in a storage of 12 numbers"),
        ({"shape": (3,), "strides": (-1,), "offset": 5}, "a tensor of shape"),
        ({"shape": (3, 2), "strides": (1,)}, "a tensor of shape"),
        ({"shape": ("a",), "strides": (1,)}, "a tensor of shape"),
        ({"n": 10**12}, "has 12 numbers, not"),
        ({"dtype": "<f4"}, "has 24 numbers, not 12"),
    ],
)
def test_tensors_that_lie_about_their_size(lie, message, tmp_path, rng):
    write_torch(tmp_path / "weights.pth", {"a": tensor(rng.standard_normal((4, 3)), **lie)})
    with pytest.raises(InputError, match=message):
        read_torch(tmp_path / "weights.pth")


def test_damaged_archives(tmp_path, rng):
    path = tmp_path / "weights.pth"
    write_torch(path, {"a": tensor(rng.standard_normal((40, 30)))})
    whole = path.read_bytes()
    for cut in (0, 10, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"weights.pth is not"):
            read_torch(path)
    for i in rng.integers(len(whole), size=200):
        changed = bytearray(whole)
        changed[i] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            got = read_torch(path)
        except InputError:
            continue
        assert isinstance(got, dict)


def test_an_archive_that_unpacks_to_gigabytes(tmp_path, monkeypatch):
    monkeypatch.setattr("lstmfit.emulator.formats.pickles.MOST_BYTES", 10**6)
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", pickle.dumps({}))
        archive.writestr("model/data/0", bytes(2 * 10**6))
    assert (tmp_path / "bomb.pth").stat().st_size < 10**5
    with pytest.raises(InputError, match="unpacks to 2 MB"):
        read_torch(tmp_path / "bomb.pth")


def test_deep_and_cyclic_pickles(tmp_path):
    (tmp_path / "deep.pkl").write_bytes(b"(" * 100_000 + b"t" * 100_001 + b".")
    buffer = io.BytesIO()
    cycle: list = []
    cycle.append(cycle)
    pickle.dump(cycle, buffer)
    (tmp_path / "cycle.pkl").write_bytes(buffer.getvalue())
    assert isinstance(read_plain(tmp_path / "cycle.pkl"), list)
    with pytest.raises(InputError, match="cannot be read as a pickle"):
        read_plain(tmp_path / "deep.pkl")
