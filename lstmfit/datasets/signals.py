"""Sets of signals to train and test on: one HDF5 file in the layout of the public 21cmVAE and 21cmLSTM sets."""

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from lstmfit.errors import InputError
from lstmfit.files import replacing
from lstmfit.parameters import Parameter

EXTRA_HISTORIES = ("x_HI",)
EXTRA_SCALARS = ("tau",)


@dataclass(frozen=True)
class Split:
    """Training, validation or test signals.

    Parameters
    ----------
    theta : numpy.ndarray
        (n, n_params) physical.
    signal : numpy.ndarray
        (n, n_channels) mK, redshift ascending.
    extras : dict of str to numpy.ndarray
        Further outputs by name: histories (n, n_channels), scalars (n,).
    """

    theta: np.ndarray
    signal: np.ndarray
    extras: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.theta)


@dataclass(frozen=True)
class SignalSet:
    """A set with its grid and parameters.

    Parameters
    ----------
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    parameters : tuple of Parameter
        In the order of theta.
    train, val, test : Split
        The three splits; empty where the file has none.
    record : dict
        Where it came from.
    """

    redshifts: np.ndarray
    parameters: tuple[Parameter, ...]
    train: Split
    val: Split
    test: Split
    record: dict


def load_signals(path, splits=("train", "val", "test")) -> SignalSet:
    """Read a set of signals.

    Parameters
    ----------
    path : path
        HDF5 with ``par_train``, ``signal_train``, ... and the attributes that `lstmfit simulate` writes.
    splits : sequence of str
        What to read; the others come back empty.

    Raises
    ------
    InputError
        No such file, another layout, shapes that do not fit together, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no set of signals {path}; `lstmfit simulate -o {path.name} -n 4096` makes one")
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file, splits)
    except OSError as error:
        raise InputError(f"{path} is not a whole HDF5 file ({error}); copy or make it again") from None


def _read(path, file, splits):
    missing = [name for name in ("parameters", "log", "min", "max") if name not in file.attrs] + (
        [] if "redshifts" in file else ["redshifts"]
    )
    if missing:
        raise InputError(f"{path} is not a set of signals: {', '.join(missing)} is missing")
    names = [str(name) for name in file.attrs["parameters"]]
    blank = [""] * len(names)
    parameters = tuple(
        Parameter(name, float(low), float(high), bool(log), str(unit), str(latex))
        for name, low, high, log, unit, latex in zip(
            names,
            file.attrs["min"],
            file.attrs["max"],
            file.attrs["log"],
            file.attrs.get("units", blank),
            file.attrs.get("latex", blank),
        )
    )
    redshifts = file["redshifts"][()].astype(float)
    if len(redshifts) < 2 or not (np.diff(redshifts) > 0).all():
        raise InputError(f"{path}: the redshift grid is not ascending; sort it and the signals with it")
    read = {split: _split(path, file, split, len(names), len(redshifts), split in splits) for split in SPLITS}
    record = {
        key: file.attrs[key].item() if hasattr(file.attrs[key], "item") else str(file.attrs[key])
        for key in ("simulator", "simulator_version", "design", "seed", "lstmfit_version")
        if key in file.attrs
    }
    return SignalSet(redshifts, parameters, **read, record=record)


SPLITS = ("train", "val", "test")


def _split(path, file, split, n_params, n_channels, wanted):
    if not wanted or f"par_{split}" not in file:
        return Split(np.empty((0, n_params)), np.empty((0, n_channels), np.float32))
    theta, signal = file[f"par_{split}"][()].astype(float), file[f"signal_{split}"][()]
    if theta.shape != (len(signal), n_params) or signal.shape != (len(theta), n_channels):
        raise InputError(
            f"{path}: par_{split} is {theta.shape} and signal_{split} {signal.shape}; "
            f"expected (n, {n_params}) and (n, {n_channels})"
        )
    extras = {
        name: file[f"{name}_{split}"][()] for name in (*EXTRA_HISTORIES, *EXTRA_SCALARS) if f"{name}_{split}" in file
    }
    for name, array in {"par": theta, "signal": signal, **extras}.items():
        if len(array) != len(theta):
            raise InputError(f"{path}: {name}_{split} has {len(array)} rows and par_{split} {len(theta)}")
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if bad.any():
            raise InputError(
                f"{path}: {name}_{split} has NaN or infinite values in {bad.sum()} rows, the first is {bad.argmax()}; "
                "remove those rows"
            )
    return Split(theta, signal, extras)


def write_test_set(path, data: SignalSet, n: int = 1024) -> None:
    """Write the first test signals of a set in the same layout, small enough to travel with an emulator.

    Signals are rounded to 1e-4 mK and neutral fractions to 1e-6, which halves the file.

    Parameters
    ----------
    path : path
        File to make or replace.
    data : SignalSet
        Its test split is written.
    n : int
        At most this many signals.
    """
    text = h5py.string_dtype()
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        columns = {
            "parameters": [p.name for p in data.parameters],
            "units": [p.unit for p in data.parameters],
            "latex": [p.latex for p in data.parameters],
        }
        for name, values in columns.items():
            file.attrs[name] = np.array(values, dtype=text)
        for name in ("log", "min", "max"):
            file.attrs[name] = np.array([getattr(p, name) for p in data.parameters])
        for key, value in data.record.items():
            file.attrs[key] = value
        file["redshifts"] = data.redshifts
        file["par_test"] = data.test.theta[:n]
        histories = {"signal": data.test.signal} | data.test.extras
        for name, array in histories.items():
            if array.ndim == 1:
                file[f"{name}_test"] = array[:n]
                continue
            digits = 4 if name == "signal" else 6
            file.create_dataset(
                f"{name}_test", data=array[:n].astype(np.float32), scaleoffset=digits, compression="gzip", shuffle=True
            )
