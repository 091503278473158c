"""Compute signals of published emulators with their authors' code, as references for the tests of `lstmfit`.

    python -m venv references
    references/bin/pip install torch==2.13.0 py21cmemu==3.0.0 globalemu==1.9.1 tensorflow-cpu==2.21.0
    references/bin/python benchmarks/published_references.py PUBLISHED

PUBLISHED is a folder with the weights as distributed by their authors: ``21cmKAN`` (Global21cmKAN/models of
github.com/jdorigojones/21cmKAN) and ``globalemu`` (T_release and xHI_release of github.com/htjb/globalemu). The script
writes, in tests/emulator/formats/data, `references.npz` and the folder `globalemu_ares`, a small globalemu network with
the parameters of ARES, which globalemu trains here on signals of 21cmKAN. All arrays are in float64; ``versions`` lists
the versions of the packages.
"""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import types
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

DATA = Path(__file__).resolve().parent.parent / "tests" / "emulator" / "formats" / "data"
LOG = {"21cmGEM": [0, 1, 2], "ARES": [0, 2, 4, 5]}
STRIDE = {"21cmGEM": 9, "ARES": 8}
"""Only every n-th channel is kept, including the first and the last."""
PACKAGES = ("torch", "py21cmemu", "globalemu", "tensorflow-cpu", "keras", "numpy")


class KANLinear(nn.Module):
    """Layer of 21cmKAN; replaces the pickled class of the package efficient-kan, which is not on PyPI."""

    def forward(self, x):
        """Outputs (n, n_out) for inputs (n, n_in)."""
        value, grid = x.unsqueeze(-1), self.grid
        bases = ((value >= grid[:, :-1]) & (value < grid[:, 1:])).to(x.dtype)
        for k in range(1, self.spline_order + 1):
            rising = (value - grid[:, : -k - 1]) / (grid[:, k:-1] - grid[:, : -k - 1])
            falling = (grid[:, k + 1 :] - value) / (grid[:, k + 1 :] - grid[:, 1:-k])
            bases = rising * bases[..., :-1] + falling * bases[..., 1:]
        weight = (self.spline_weight * self.spline_scaler.unsqueeze(-1)).flatten(1)
        return self.base_activation(x) @ self.base_weight.T + bases.flatten(1) @ weight.T


class KAN(nn.Module):
    """Network of 21cmKAN: a sequence of layers."""

    def forward(self, x):
        """Outputs of the last layer (n, n_channels) for inputs (n, n_params)."""
        for layer in self.layers:
            x = layer(x)
        return x


def load_21cmkan(folder: Path, name: str):
    """Function from physical parameters to mK in ascending redshift, and the limits of the scaled parameters."""
    module = types.ModuleType("efficient_kan.kan")
    module.KAN, module.KANLinear = KAN, KANLinear
    sys.modules |= {"efficient_kan": types.ModuleType("efficient_kan"), "efficient_kan.kan": module}
    model = torch.load(folder / f"emulator_{name}.pth", map_location="cpu", weights_only=False).double().eval()
    low, high = (np.load(folder / f"train_{end}_{name}.npy") for end in ("mins", "maxs"))

    def signals(theta):
        x = theta.copy()
        x[:, LOG[name]] = np.log10(np.where(x[:, LOG[name]] == 0, 1e-6, x[:, LOG[name]]))
        x = (x - low[:-1]) / (high - low)[:-1]
        with torch.no_grad():
            y = model(torch.from_numpy(x)).numpy()
        return (y * (high[-1] - low[-1]) + low[-1])[:, ::-1]

    return signals, low[:-1], high[:-1]


def draws(low, high, log, n, seed, zero=None):
    """Physical parameter sets: two corners of the box, then n - 2 points inside it; column `zero` is 0 in row 2."""
    x = low + (high - low) * np.random.default_rng(seed).random((n, len(low)))
    x[0], x[1] = low, high
    x[:, log] = 10.0 ** x[:, log]
    if zero is not None:
        x[2, zero] = 0.0
    return x


def of_21cmkan(folder: Path) -> dict:
    """Both published networks in float64."""
    arrays = {}
    for name, zero in (("21cmGEM", 2), ("ARES", None)):
        signals, low, high = load_21cmkan(folder, name)
        theta = draws(low, high, LOG[name], 32, 1, zero)
        arrays[f"kan_{name}_theta"] = theta
        arrays[f"kan_{name}_signal"] = signals(theta)[:, :: STRIDE[name]]
    return arrays


def predictor(folder: Path, logs):
    """Function of globalemu that evaluates the network in a folder."""
    from globalemu.eval import evaluate

    predict = evaluate(base_dir=f"{folder}/", logs=logs)
    return lambda theta: predict(theta.copy())[0]


def of_globalemu(folder: Path) -> dict:
    """Released networks of the signal and the neutral fraction of 21cmGEM."""
    arrays = {}
    for name, stride in (("T_release", 9), ("xHI_release", 5)):
        low, high = (np.loadtxt(folder / name / f"data_{end}.txt") for end in ("mins", "maxs"))
        theta = draws(low, high, [0, 1, 2], 32, 2, 2)
        arrays[f"globalemu_{name}_theta"] = theta
        arrays[f"globalemu_{name}_output"] = predictor(folder / name, [0, 1, 2])(theta)[:, ::stride]
    return arrays


def of_globalemu_ares(folder: Path) -> dict:
    """A folder written by globalemu with a current version of Keras, and its signals.

    Parameters and settings are those of Bevins et al. (2025): the 8 parameters of ARES, redshifts 6 to 55, three layers
    of 32 units, neither baseline nor resampling. The network is only trained for a few epochs.
    """
    import tensorflow as tf
    from globalemu.network import nn as train
    from globalemu.preprocess import process

    signals, low, high = load_21cmkan(folder, "ARES")
    z, grid = np.arange(6, 55, 0.1), np.linspace(5.1, 49.9, 449)
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(work)
        Path("data").mkdir()
        for split, n, seed in (("train", 100, 3), ("test", 20, 4)):
            theta = draws(low, high, LOG["ARES"], n, seed)
            np.savetxt(f"data/{split}_data.txt", theta)
            np.savetxt(f"data/{split}_labels.txt", [np.interp(z, grid, row) for row in signals(theta)])
        process("full", z, base_dir="ares/", data_location="data/", logs=LOG["ARES"], AFB=False, resampling=False)
        tf.keras.utils.set_random_seed(5)
        train(batch_size=451, epochs=10, base_dir="ares/", layer_sizes=[32, 32, 32], input_shape=9)
        target = DATA / "globalemu_ares"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in ("model.h5", "z.txt", "data_mins.txt", "data_maxs.txt", "labels_stds.npy",
                     "preprocess_settings.pkl", "kwargs.txt"):  # fmt: skip
            shutil.copyfile(f"ares/{name}", target / name)
        os.chdir(here)
    theta = draws(*(np.loadtxt(target / f"data_{end}.txt") for end in ("mins", "maxs")), LOG["ARES"], 16, 6)
    return {"globalemu_ares_theta": theta, "globalemu_ares_output": predictor(target, LOG["ARES"])(theta)[:, ::7]}


def of_21cmemu() -> dict:
    """Signal, x_HI, tau and luminosity functions of both 21cmFAST emulators, with their grids and published errors."""
    from py21cmemu import Emulator

    arrays = {}
    for name in ("mcg", "acg"):
        emulator = Emulator(name)
        p = emulator.properties
        limits = (p.lstm_limits[:-1] if name == "mcg" else p.limits).copy()
        if name == "acg":
            # predict() expects eV and divides by 1000.
            limits[7] *= 1000
        theta = draws(limits[:, 0], limits[:, 1], [], 12, 7)
        _, output, _ = emulator.predict(theta.copy())
        found = {
            "theta": theta, "limits": limits, "redshifts": p.zs,
            "uvlf_redshifts": output.UVLF_redshifts.value, "uvlf_magnitudes": output.Muv.value,
            "signal": output.Tb.value, "x_HI": output.xHI.value, "tau": output.tau.value, "uvlf": output.UVLFs.value,
        }  # fmt: skip
        if name == "mcg":
            errors = ("Tb_med_err", "Tb_mean_err", "xHI_med_err", "tau_med_err", "tau_mean_err", "UVLFs_med_err")
        else:
            errors = ("Tb_err", "xHI_err", "tau_err", "UVLFs_logerr")
        found |= {error: getattr(p, error) for error in errors}
        arrays |= {f"{name}_{key}": np.asarray(value) for key, value in found.items()}
        arrays[f"{name}_names"] = np.array(p.astro_param_keys)
    return arrays


def main(published: Path) -> None:
    """Write the references."""
    torch.set_default_dtype(torch.float32)
    arrays = of_21cmkan(published / "21cmKAN") | of_globalemu(published / "globalemu") | of_21cmemu()
    arrays |= of_globalemu_ares(published / "21cmKAN")
    arrays = {name: a if a.dtype.kind == "U" else np.asarray(a, float) for name, a in arrays.items()}
    arrays["versions"] = np.array([f"{name} {metadata.version(name)}" for name in PACKAGES])
    np.savez_compressed(DATA / "references.npz", **arrays)
    for name, array in arrays.items():
        print(name, array.shape)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
