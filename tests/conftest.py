"""Shared pieces of the tests."""

import os
import sys

# Before NumPy is imported anywhere: several processes of several threads each would fight for two cores.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# XLA (TensorFlow and JAX) compiles networks of a test in half of the time when it does not optimise them.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Cobaya would start MPI in the process of the tests, see `mpi_is_not_started`.
os.environ.setdefault("COBAYA_NOMPI", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from helpers import EDGES  # noqa: E402


@pytest.fixture
def rng():
    return np.random.default_rng(20240711)


@pytest.fixture(autouse=True)
def mpi_is_not_started():
    """MPI sets variables of the environment, with which mpirun fails in all later tests of this process."""
    before = _mpi_has_started()
    yield
    assert before or not _mpi_has_started(), "this test starts MPI in the process of the tests; use another process"


def _mpi_has_started():
    module = sys.modules.get("mpi4py.MPI")
    return module is not None and module.Is_initialized()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Keep the tests of a file, which share runs, on one worker; two mpirun at a time would disturb each other."""
    with_mpi = {item.path for item in items if item.get_closest_marker("mpi")}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("mpi" if item.path in with_mpi else item.path.name))


@pytest.fixture
def edges(tmp_path, monkeypatch):
    """The fetched EDGES spectrum in a cache of its own."""
    from lstmfit.datasets.public import fetch

    if not EDGES.is_file():
        pytest.skip("no copy of the EDGES spectrum at hand")
    monkeypatch.setenv("LSTMFIT_DATA", str(tmp_path / "cache"))
    fetch("edges2018", source=str(EDGES))
