"""Networks saved in HDF5 by Keras 2 or 3, read without Keras."""

from dataclasses import dataclass

import h5py
import numpy as np

from lstmfit.errors import InputError, listed
from lstmfit.hdf5 import read_array, read_json, read_texts, reading
from lstmfit.schema import shown

NO_WEIGHTS = ("InputLayer", "Dropout")
"""Layers that have no effect when a trained network is evaluated."""
SHAPES = {"LSTM": ((None, None), (None, None), (None,)), "Dense": ((None, None), (None,))}
"""Dimensions of the arrays of each supported layer, in the order of its ``weight_names``: kernels, then the bias."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Parameters
    ----------
    kind : str
        Class of the layer, LSTM or Dense.
    config : dict
        Settings as written by Keras.
    arrays : list of numpy.ndarray
        Kernel, recurrent kernel (LSTM only), bias.
    """

    kind: str
    config: dict
    arrays: list[np.ndarray]


def is_keras(path) -> bool:
    """Whether a file is a network saved by Keras in HDF5, recognised by its ``model_config``."""
    try:
        # Errors of a damaged file differ from place to place in it; this knows all of them.
        with reading(path, "Keras file", "copy it again") as file:
            return "model_config" in file.attrs
    except InputError:
        return False


@dataclass(frozen=True)
class Network:
    """A sequential network.

    Parameters
    ----------
    layers : list of Layer
        Layers with weights, first to last.
    input_shape : tuple of (int or None), optional
        Shape of one input, without the batch axis, if the file contains it.
    """

    layers: list[Layer]
    input_shape: tuple | None


def read_keras(path, what: str, kinds=tuple(SHAPES)) -> Network:
    """Read the layers of a network and their weights.

    Parameters
    ----------
    path : path
        The ``.h5`` file.
    what : str
        Description of the expected file, for messages: "Keras file of 21cmLSTM".
    kinds : sequence of str
        Kinds of layers that the network may have.

    Raises
    ------
    InputError
        The file is missing, damaged, not a sequential network, or has a layer of another kind.
    """
    with reading(path, what, "copy it again") as file:
        content = read_json(file, "model_config", dict).get("config")
        content = content.get("layers") if isinstance(content, dict) else content
        if not isinstance(content, list) or not all(_is_layer(layer) for layer in content):
            raise InputError(f"{path} is not a {what}: its model_config does not list any layers; copy it again")
        layers = [layer for layer in content if layer["class_name"] not in NO_WEIGHTS]
        found = [layer["class_name"] for layer in layers]
        if not found or not set(found) <= set(kinds):
            raise InputError(
                f"{path} is a network with layers {listed(found)}; a {what} may only have {' and '.join(kinds)}"
            )
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
    """Shape in the config of the first layer: batch_input_shape in Keras 2, batch_shape in Keras 3."""
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    return tuple(shape[1:]) if isinstance(shape, list) else None


def _read_layer(weights, layer) -> Layer:
    """Read the arrays of a layer in Keras' order, under the names listed in its group."""
    kind, config = layer["class_name"], layer["config"]
    group = weights.get(config["name"])
    if not isinstance(group, h5py.Group):
        raise InputError(f"{weights.file.filename}: the weights of layer {config['name']} are missing; copy it again")
    if config.get("use_bias", True) is not True:
        raise InputError(
            f"{weights.file.filename}: layer {config['name']} has use_bias {shown(config['use_bias'])}, but only "
            "layers with a bias are supported"
        )
    names = read_texts(group, "weight_names", len(SHAPES[kind]))
    return Layer(kind, config, [read_array(group, name, shape) for name, shape in zip(names, SHAPES[kind])])
