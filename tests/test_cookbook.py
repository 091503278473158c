"""The recipes of docs/cookbook.md and the steps of docs/getting_started.md work as they are written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch_files import kan_layer, kan_module, write_torch

from lstmfit.constants import redshift_to_frequency

TOP = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"
SMALL = "\nsampler: {polychord: {nlive: 20, num_repeats: 2, seed: 1}}\n"
"""Added to run files without a sampler, because the default settings take minutes."""
SMALLER = {
    "lstmfit train": "--updates 20 --units 8 --encoder 8",
    "lstmfit simulate": "-n 32",
    "lstmfit calibrate": "-n 4",
    "lstmfit fit mock_25mK": "--time-limit 20s",
}
"""Options that are added to commands; of two the last counts."""
SLOW = (
    "A spectrum with unknown noise",
    "Is the emulator accurate enough?",
    "Is there a signal?",
    "A planned observation",
    "Several spectra",
    "Signals of my own",
    "A queue with a time limit",
    "Are my posteriors calibrated?",
)
"""Recipes that take more than ten seconds."""


def sections(page):
    """Code blocks (language, text) of a page, by the heading that they follow."""
    text = (TOP / "docs" / page).read_text(encoding="utf-8")
    found = {}
    for heading, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.M | re.S):
        found[heading] = re.findall(r"^```(yaml|bash|python)\n(.*?)^```", body, re.M | re.S)
    return found


RECIPES = {heading: blocks for heading, blocks in sections("cookbook.md").items() if blocks}


def work(blocks, folder, status=(0,)):
    """Write the files of a recipe, and run its commands and scripts one after the other."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "COBAYA_NOMPI": "1"}
    for language, text in blocks:
        name = re.match(r"# (\w+\.\w+)\n", text)
        if name:
            own = language == "yaml" and "likelihood:" in text and "sampler:" not in text
            (folder / name[1]).write_text(text + SMALL if own else text)
            continue
        if language == "python":
            (folder / "script.py").write_text(text)
            text = f"{sys.executable} script.py"
        command = text
        for start, options in SMALLER.items():
            command = re.sub(rf"^({start}.*)$", rf"\1 {options}", command, flags=re.M)
        done = subprocess.run(
            ["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        assert done.returncode in status, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def pantry(tmp_path, rng):
    """The files that the recipes start from, of a made-up experiment."""
    nu = np.linspace(60.0, 110.0, 60)
    for i, name in enumerate(("spectrum", "lst1", "lst2")):
        sky = (1750.0 + 200 * i) * (nu / 75.0) ** -2.5 - 0.15 * np.exp(-0.5 * ((nu - 82.0) / 6.0) ** 2)
        measured = sky + 0.02 * rng.standard_normal(nu.size)
        np.savetxt(tmp_path / f"{name}.csv", np.column_stack([nu, measured]), delimiter=",")
    table = np.column_stack([nu, measured, np.full(nu.size, 0.02)])
    np.savetxt(tmp_path / "with_errors.csv", table, delimiter=",", header="nu,T,rms", comments="")
    slopes = rng.normal(-2.5, 0.05, (60, 3))
    spectra = (600.0 * np.exp(slopes[..., None] * np.log(nu / 75.0))).sum(axis=1)
    np.savez(tmp_path / "spectra.npz", spectra=spectra, frequencies=nu)
    z = np.linspace(30.0, 6.0, 45)
    theta = np.column_stack([10 ** rng.uniform(-3, -1, 200), rng.uniform(-1, 1, 200)])
    signals = -100.0 * np.exp(-0.5 * ((z - 15.0 - 2.0 * theta[:, 1:]) / 3.0) ** 2) * (1 + theta[:, :1])
    np.savez(tmp_path / "mine.npz", params=theta, T21=signals, nu=redshift_to_frequency(z))
    sizes = (7, 4, 5, 451)
    layers = [kan_layer(rng, *pair) for pair in zip(sizes, sizes[1:])]
    write_torch(tmp_path / "emulator_21cmGEM.pth", kan_module(layers))
    np.save(tmp_path / "train_mins_21cmGEM.npy", np.array([-4.0, 0.6, -6.0, 0.04, 1.0, 0.1, 10.0, -290.0]))
    np.save(tmp_path / "train_maxs_21cmGEM.npy", np.array([-0.3, 2.0, 3.0, 0.17, 1.5, 3.0, 50.0, 35.0]))
    shutil.copytree(DATA / "multinest", tmp_path / "chains" / "other")
    for file in (tmp_path / "chains" / "other").iterdir():
        file.rename(file.with_name(file.name.replace("test-", "test")))
    return tmp_path


@pytest.mark.parametrize(
    "heading", [pytest.param(h, marks=[pytest.mark.slow, pytest.mark.ci] if h in SLOW else []) for h in RECIPES]
)
def test_the_recipe_works(heading, pantry):
    work(RECIPES[heading], pantry, status=(0, 75) if "time limit" in heading else (0,))


def test_there_is_a_recipe_for_each_slow_name():
    assert set(SLOW) <= set(RECIPES)


@pytest.mark.slow
@pytest.mark.ci
def test_getting_started_works(tmp_path):
    """Its run file, commands and script, as they are; only the installation is tested elsewhere."""
    blocks = [block for part in sections("getting_started.md").values() for block in part]
    work(blocks, tmp_path)
    assert {language for language, _ in blocks} == {"yaml", "bash", "python"}
    assert (tmp_path / "chains" / "first" / "report.html").is_file()
    assert (tmp_path / "corner.png").is_file()
