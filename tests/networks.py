"""Networks with random weights, and files in the layouts of published ones."""

import json

import h5py
import numpy as np

from lstmfit import Emulator
from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.signal_sets import SignalSet, Split
from lstmfit.emulator.architecture import Architecture
from lstmfit.emulator.scaling import Scaling
from lstmfit.parameters import Parameter

PARAMETERS = (
    Parameter("a", 1e-2, 1e2, log=True, latex="a", unit="K"),
    Parameter("b", -1.0, 1.0),
    Parameter("c", 0.5, 3.0),
)


def random_network(rng, **sizes):
    """An architecture with random weights and scaling: (architecture, scaling, weights)."""
    sizes = {"units": 20, "steps": 7, "encoder": (9,), "histories": ("signal", "x_HI"), "scalars": ("tau",)} | sizes
    architecture = Architecture(len(PARAMETERS), 45, **sizes)
    weights = {k: rng.normal(scale=0.4, size=s).astype(np.float32) for k, s in architecture.shapes().items()}
    histories = 50.0 * rng.standard_normal((20, len(architecture.histories), 45))
    scaling = Scaling.fit(PARAMETERS, histories, rng.standard_normal((20, len(architecture.scalars))))
    return architecture, scaling, weights


def write_sky(path, rng, redshifts, parameters=PARAMETERS):
    """An emulator file of random spectra of thousands of K on a grid of 45 redshifts; the path as a string."""
    architecture, scaling, weights = random_network(rng)
    scaling.offset[0] = 2.6e6 * (redshift_to_frequency(redshifts) / 75.0) ** -2.55
    scaling.scale[0] = 2e5
    Emulator(architecture, scaling, weights, redshifts, parameters).save(path)
    return str(path)


def draw_theta(rng, n):
    """Parameter sets inside the ranges of PARAMETERS."""
    u = rng.uniform(size=(n, 3))
    return np.stack([10 ** (4 * u[:, 0] - 2), 2 * u[:, 1] - 1, 0.5 + 2.5 * u[:, 2]], axis=1)


def make_set(rng, n=256):
    """A set of absorption troughs on 31 channels whose depth, centre and width are the parameters."""
    z = np.linspace(5, 30, 31)

    def split(m):
        theta = draw_theta(rng, m)
        depth, centre, width = 50 + 20 * np.log10(theta[:, 0]), 15 + 5 * theta[:, 1], 2 + theta[:, 2]
        signal = -depth[:, None] * np.exp(-0.5 * ((z - centre[:, None]) / width[:, None]) ** 2)
        extras = {"x_HI": 1 / (1 + np.exp(-(z - 7 - theta[:, 1:2]))), "tau": 0.05 + 0.01 * theta[:, 1]}
        return Split(theta, signal, extras)

    return SignalSet(z, PARAMETERS, split(n), split(64), split(64), {"simulator": "gaussians"})


def part_of_set(data, keep=slice(None), parameters=PARAMETERS):
    """The set on part of its grid, and of the rows inside the ranges of the parameters."""

    def cut(split):
        rows = np.all([p.is_inside(split.theta[:, i]) for i, p in enumerate(parameters)], axis=0)
        extras = {name: a[rows][:, keep] if a.ndim == 2 else a[rows] for name, a in split.extras.items()}
        return Split(split.theta[rows], split.signal[rows][:, keep], extras)

    return SignalSet(data.redshifts[keep], parameters, *map(cut, (data.train, data.val, data.test)), data.record)


MINIMA = [-3.99967, 0.623249, -6, 0.0400200, 1, 0.1, 10, 0.1176471, -294.11206]
MAXIMA = [-0.301030, 1.999844, 3, 0.1737761, 1.5, 3, 50, 1, 35.489994]
UNITS = 12


def write_keras2(path, rng, units=UNITS, inputs=8):
    """A file as Keras 2 writes it: config with time_major, weights under lstm_cell, random numbers."""
    lstm = {"units": units, "activation": "tanh", "recurrent_activation": "sigmoid", "return_sequences": True,
            "time_major": False, "unit_forget_bias": True, "implementation": 2}  # fmt: skip
    layers = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 451, inputs], "name": "lstm_input"}},
        {"class_name": "LSTM", "config": lstm | {"name": "lstm"}},
        {"class_name": "LSTM", "config": lstm | {"name": "lstm_1"}},
        {"class_name": "Dense", "config": {"name": "dense", "units": 1, "activation": "linear"}},
    ]
    shapes = {
        "lstm": {"kernel": (inputs, 4 * units), "recurrent_kernel": (units, 4 * units), "bias": (4 * units,)},
        "lstm_1": {"kernel": (units, 4 * units), "recurrent_kernel": (units, 4 * units), "bias": (4 * units,)},
        "dense": {"kernel": (units, 1), "bias": (1,)},
    }
    weights = {}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": layers}})
        file.attrs["keras_version"], file.attrs["backend"] = "2.15.0", "tensorflow"
        for layer, arrays in shapes.items():
            cell = f"{layer}/lstm_cell" if layer.startswith("lstm") else layer
            names = [f"{cell}/{name}:0" for name in arrays]
            group = file.create_group(f"model_weights/{layer}")
            group.attrs["weight_names"] = np.array(names, dtype="S")
            for name, shape in zip(names, arrays.values()):
                weights[name] = rng.normal(scale=0.3, size=shape).astype(np.float32)
                group[name] = weights[name]
    return list(weights.values())


def write_gem(path, rng, n=(40, 8, 8)):
    """The public 21cmGEM file's layout, with an fX of zero as it has them."""
    with h5py.File(path, "w") as file:
        for split, m in zip(("train", "val", "test"), n):
            u = rng.uniform(size=(m, 7))
            low = np.array([1e-4, 4.2, 1e-6, 0.04, 1.0, 0.1, 10.0])
            high = np.array([0.5, 100.0, 1e3, 0.17, 1.5, 3.0, 50.0])
            theta = np.where([True] * 3 + [False] * 4, low * (high / low) ** u, low + u * (high - low))
            theta[0, 2] = 0.0
            z = np.linspace(5, 50, 451)
            file[f"par_{split}"] = theta
            file[f"signal_{split}"] = -100 * np.exp(-0.5 * ((z - 10 - 10 * u[:, :1]) / 3) ** 2)
