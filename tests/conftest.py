"""Shared pieces of the tests."""

import os

# Before NumPy is imported anywhere: several processes of several threads each would fight for two cores.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from lstmfit.emulator.architecture import Architecture  # noqa: E402
from lstmfit.emulator.scaling import Scaling  # noqa: E402
from lstmfit.parameter import Parameter  # noqa: E402

PARAMETERS = (
    Parameter("a", 1e-2, 1e2, log=True, latex="a", unit="K"),
    Parameter("b", -1.0, 1.0),
    Parameter("c", 0.5, 3.0),
)


@pytest.fixture
def rng():
    return np.random.default_rng(20240711)


def random_network(rng, **sizes):
    """An architecture with random weights and scaling: (architecture, scaling, weights)."""
    sizes = {"units": 20, "steps": 7, "encoder": (9,), "histories": ("signal", "x_HI"), "scalars": ("tau",)} | sizes
    architecture = Architecture(len(PARAMETERS), 45, **sizes)
    weights = {k: rng.normal(scale=0.4, size=s).astype(np.float32) for k, s in architecture.shapes().items()}
    histories = 50.0 * rng.standard_normal((20, len(architecture.histories), 45))
    scaling = Scaling.fit(PARAMETERS, histories, rng.standard_normal((20, len(architecture.scalars))))
    return architecture, scaling, weights


def draw_theta(rng, n):
    """Parameter sets inside the ranges of PARAMETERS."""
    u = rng.uniform(size=(n, 3))
    return np.stack([10 ** (4 * u[:, 0] - 2), 2 * u[:, 1] - 1, 0.5 + 2.5 * u[:, 2]], axis=1)


def pytest_collection_modifyitems(items):
    """Keep the tests of a file, which share runs, on one worker; two mpirun at a time would disturb each other."""
    with_mpi = {item.path for item in items if item.get_closest_marker("mpi")}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("mpi" if item.path in with_mpi else item.path.name))
