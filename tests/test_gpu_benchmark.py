"""`bench --gpu`: all of it on the CPU device with tiny sizes; what is said without a GPU."""

import json

import numpy as np
import pytest
from helpers import lstmfit, small_run
from networks import PARAMETERS, random_network
from torch_files import kan_layer, kan_module, write_torch

from lstmfit import Emulator
from lstmfit.cli.emulators import _show_gpu_bench
from lstmfit.errors import InputError
from lstmfit.gpu_benchmark import run_gpu_bench

pytest.importorskip("jax")
pytest.importorskip("blackjax")
tf = pytest.importorskip("tensorflow")

BLACKJAX = {"n_live": 20, "num_delete": 10, "num_inner_steps": 2, "precision_criterion": 0.5, "seed": 1}


@pytest.mark.slow
@pytest.mark.ci
def test_the_whole_of_it_on_the_cpu(tmp_path, rng, capsys):

    architecture, scaling, weights = random_network(rng)
    network = Emulator(architecture, scaling, weights, np.linspace(6, 28, 45), PARAMETERS)
    network.save(tmp_path / "e.h5")
    run = small_run()
    run["data"]["mock"]["from"] = "emulator"
    results = run_gpu_bench(
        tmp_path / "e.h5", device="cpu", batches=(2, 3), seconds=0.01, updates=80, run=run, settings=BLACKJAX
    )
    assert set(results) == {"devices", "engines", "training", "fit"}
    assert set(results["devices"]) == {"tensorflow", "jax", "cpu"}
    assert set(results["engines"]) == {"numba", "xla", "jax"}
    for engine in results["engines"].values():
        assert engine["single_ms"] > 0
        assert set(engine["batched_us"]) == {"2", "3"}
        assert all(value > 0 for value in engine["batched_us"].values())
    assert results["training"]["gpu"] > 0
    assert results["training"]["cpu"] > 0
    assert set(results["fit"]["gpu"]) == {"wall_s", "n_like", "logZ", "logZ_err"}
    assert results["fit"]["gpu"]["logZ"] == results["fit"]["cpu"]["logZ"]
    json.dumps(results)
    _show_gpu_bench(results)
    shown = capsys.readouterr().out
    assert "BlackJAX fit [s]" in shown
    assert "training [updates per second]" in shown


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line():
    done = lstmfit("bench", "--gpu")
    assert done.returncode == 2
    *_, last = done.stderr.splitlines()
    assert last.startswith("lstmfit: bench --gpu found no GPU: TensorFlow ")
    assert last.endswith(" or omit --gpu to time the CPU")
    assert done.stdout == ""


def test_one_emulator_at_a_time():
    done = lstmfit("bench", "echo21", "21cmgem", "--gpu")
    assert done.returncode == 2
    assert done.stderr == "lstmfit: bench --gpu takes one emulator, not 2; run it once for each\n"


def test_an_emulator_without_these_engines_is_refused(tmp_path, rng):

    write_torch(tmp_path / "emulator_21cmGEM.pth", kan_module([kan_layer(rng, 7, 451)]))
    for name, values in (("mins", [*np.zeros(7), -200]), ("maxs", [*np.ones(7), 20])):
        np.save(tmp_path / f"train_{name}_21cmGEM.npy", values)
    with pytest.raises(InputError, match=r"bench --gpu needs a network of lstmfit, but .* is 21cmKAN"):
        run_gpu_bench(tmp_path / "emulator_21cmGEM.pth", device="cpu")
