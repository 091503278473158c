"""Files as torch.save writes them, made without torch."""

import collections
import io
import pickle
import zipfile

import numpy as np

KINDS = {"<f8": "DoubleStorage", "<f4": "FloatStorage"}


class Named:
    """Something that a pickle names: a global of a module that need not exist."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """What comes out of a call of a named thing, and the state that is given to it."""

    def __init__(self, function, arguments=(), state=None):
        self.function, self.arguments, self.state = function, arguments, state


class Storage:
    """The numbers of a tensor, in a file of their own."""

    def __init__(self, array, n=None, dtype=None):
        self.array, self.n, self.dtype = array, array.size if n is None else n, dtype or array.dtype.str


def tensor(array, shape=None, strides=None, offset=0, **storage):
    """A tensor as torch writes it; shape and strides may lie."""
    shape = array.shape if shape is None else shape
    strides = tuple(s // array.itemsize for s in array.strides) if strides is None else strides
    arguments = Storage(array, **storage), offset, shape, strides, False, collections.OrderedDict()
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), arguments)


class Module(Call):
    """A module of a class that is named."""

    def __init__(self, module, name, **state):
        super().__init__(Named(module, name), (), state)


class _Pickler(pickle._Pickler):
    """Writes the globals, calls and storages of this file; what they name need not exist."""

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = []

    def save(self, item, **options):
        if isinstance(item, Named):
            self.write(f"c{item.module}\n{item.name}\n".encode())
        elif isinstance(item, Call):
            self.save(item.function)
            self.save(item.arguments)
            self.write(pickle.REDUCE)
            if item.state is not None:
                self.save(item.state)
                self.write(pickle.BUILD)
        else:
            super().save(item, **options)

    def persistent_id(self, item):
        if not isinstance(item, Storage):
            return None
        self.storages.append(item.array)
        kind = Named("torch", KINDS.get(item.dtype, item.dtype))
        return ("storage", kind, str(len(self.storages) - 1), "cuda:0", item.n)


def write_torch(path, content):
    """Write content to a zip archive with its pickle and one file for each storage."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", buffer.getvalue())
        archive.writestr("model/byteorder", "little")
        for i, array in enumerate(pickler.storages):
            archive.writestr(f"model/data/{i}", np.ascontiguousarray(array).tobytes())


def kan_layer(rng, n_in, n_out):
    """Arrays of a KANLinear on the grid of 21cmKAN."""
    knots = np.tile(np.linspace(-1, 1, 8)[0] + (np.arange(14) - 3) * 2 / 7, (n_in, 1))
    return {
        "base_weight": rng.standard_normal((n_out, n_in)),
        "spline_weight": 0.3 * rng.standard_normal((n_out, n_in, 10)),
        "spline_scaler": rng.standard_normal((n_out, n_in)),
        "grid": knots,
    }


def kan_module(layers):
    """The pickled module of 21cmKAN with these layers."""
    linear = [
        Module(
            "efficient_kan.kan", "KANLinear", training=False,
            _parameters=collections.OrderedDict((k, tensor(v)) for k, v in layer.items() if k != "grid"),
            _buffers=collections.OrderedDict(grid=tensor(layer["grid"])),
        )
        for layer in layers
    ]  # fmt: skip
    container = Module("torch.nn.modules.container", "ModuleList",
                       _modules=collections.OrderedDict((str(i), m) for i, m in enumerate(linear)))  # fmt: skip
    return Module("efficient_kan.kan", "KAN", _modules=collections.OrderedDict(layers=container))
