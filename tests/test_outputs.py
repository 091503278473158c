"""The flat layout of a model's outputs."""

import pickle

import numpy as np
import pytest

from lstmfit import Emulator
from lstmfit.outputs import OutputLayout


def test_histories_numbers_and_tables_lie_one_after_another():
    layout = OutputLayout({"signal": (4,), "tau": (), "uvlf": (2, 3)})
    assert layout.size == 11
    assert dict(layout) == {"signal": slice(0, 4), "tau": 4, "uvlf": slice(5, 11)}
    parts = {"signal": np.arange(4.0), "tau": 0.06, "uvlf": np.arange(6.0).reshape(2, 3), "unused": 3}
    flat = layout.pack(parts)
    assert flat.shape == (11,)
    for name in layout:
        np.testing.assert_array_equal(layout.take(flat, name), parts[name])
    many = np.array([flat, 2.0 * flat])
    np.testing.assert_array_equal(layout.take(many, "uvlf")[1], 2.0 * parts["uvlf"])
    np.testing.assert_array_equal(layout.take(many, "tau"), [0.06, 0.12])
    assert pickle.loads(pickle.dumps(layout)) == layout
    with pytest.raises(ValueError, match=r"signal has shape \(3,\); expected \(4,\)"):
        layout.pack(parts | {"signal": np.zeros(3)})
    with pytest.raises(KeyError, match="tau"):
        layout.pack({"signal": np.zeros(4)})


def test_it_is_the_emulators_own():
    emulator = Emulator.load("echo21")
    layout = emulator.layout
    theta = np.array([np.sqrt(p.min * p.max) if p.log else 0.5 * (p.min + p.max) for p in emulator.parameters])
    flat = np.array(emulator.raw(theta), dtype=float)
    assert layout.size == len(flat)
    for name, value in emulator.histories(theta).items():
        np.testing.assert_array_equal(layout.take(flat, name), value)
