"""Networks that Keras 2 or 3 saved in HDF5, read without Keras."""

from dataclasses import dataclass

import h5py
import numpy as np

from lstmfit.errors import InputError, listed
from lstmfit.hdf5 import read_array, read_json, read_texts, reading
from lstmfit.schema import shown

NO_WEIGHTS = ("InputLayer", "Dropout")
"""Layers that change nothing when a trained network is evaluated."""
SHAPES = {"LSTM": ((None, None), (None, None), (None,)), "Dense": ((None, None), (None,))}
"""Arrays of each layer that can be read, in the order of its ``weight_names``: kernels, then the bias."""


@dataclass(frozen=True)
class Layer:
    """One layer with weights.

    Parameters
    ----------
    kind : str
        Its class: LSTM or Dense.
    config : dict
        Its settings as Keras wrote them.
    arrays : list of numpy.ndarray
        Kernel, recurrent kernel of an LSTM, bias.
    """

    kind: str
    config: dict
    arrays: list[np.ndarray]


def is_keras(path) -> bool:
    """Whether a file is a network that Keras saved in HDF5: with its ``model_config``."""
    if not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return "model_config" in file.attrs
    except (OSError, RuntimeError):
        return False


@dataclass(frozen=True)
class Network:
    """A chain of layers.

    Parameters
    ----------
    layers : list of Layer
        Those with weights, first to last.
    input_shape : tuple of (int or None), optional
        Of one input as the file says, the batch's axis left out.
    """

    layers: list[Layer]
    input_shape: tuple | None


def read_keras(path, what: str, kinds=tuple(SHAPES)) -> Network:
    """Layers of a network with their weights.

    Parameters
    ----------
    path : path
        The ``.h5`` file.
    what : str
        What it should be, for messages: "Keras file of 21cmLSTM".
    kinds : sequence of str
        Kinds of layers that it may have.

    Raises
    ------
    InputError
        It is missing, damaged, not a chain of layers, or has a layer of another kind.
    """
    with reading(path, what, "copy it again") as file:
        content = read_json(file, "model_config", dict).get("config")
        content = content.get("layers") if isinstance(content, dict) else content
        if not isinstance(content, list) or not all(_is_layer(layer) for layer in content):
            raise InputError(f"{path} is not a {what}: its model_config lists no layers; copy it again")
        layers = [layer for layer in content if layer["class_name"] not in NO_WEIGHTS]
        found = [layer["class_name"] for layer in layers]
        if not found or not set(found) <= set(kinds):
            raise InputError(f"{path} is a network of {listed(found)}; a {what} has layers of {' and '.join(kinds)}")
        weights = file["model_weights"] if "model_weights" in file else file
        return Network([_read_layer(weights, layer) for layer in layers], _input_shape(content[0]["config"]))


def _is_layer(layer) -> bool:
    return (
        isinstance(layer, dict)
        and isinstance(layer.get("class_name"), str)
        and isinstance(layer.get("config"), dict)
        and (isinstance(layer["config"].get("name"), str) or layer["class_name"] in NO_WEIGHTS)
    )


def _input_shape(config):
    """Keras 2 calls it batch_input_shape, Keras 3 batch_shape; an LSTM may have it that is the first layer."""
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    return tuple(shape[1:]) if isinstance(shape, list) else None


def _read_layer(weights, layer) -> Layer:
    """Arrays of a layer in Keras' order, by the names that its group lists."""
    kind, config = layer["class_name"], layer["config"]
    group = weights.get(config["name"])
    if not isinstance(group, h5py.Group):
        raise InputError(f"{weights.file.filename}: the weights of layer {config['name']} are missing; copy it again")
    if config.get("use_bias", True) is not True:
        raise InputError(
            f"{weights.file.filename}: layer {config['name']} has use_bias {shown(config['use_bias'])}; it must be true"
        )
    names = read_texts(group, "weight_names", len(SHAPES[kind]))
    return Layer(kind, config, [read_array(group, name, shape) for name, shape in zip(names, SHAPES[kind])])
