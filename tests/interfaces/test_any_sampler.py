"""Samplers that lstmfit knows nothing about: the examples of docs/frameworks.md, and a pool of processes."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8").split("## Any other")[1], re.M | re.S)


def example(module):
    """The block that makes the problem, and that of a sampler."""
    # Not importorskip, because nautilus and UltraNest start MPI when they are imported.
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"pip install {module}")
    (block,) = (block for block in EXAMPLES if f"import {module}\n" in block)
    return EXAMPLES[0], block


def namespace_of(module, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    for block in example(module):
        exec(compile(block, str(PAGE), "exec"), found)
    return found


@pytest.fixture(scope="module")
def truth():
    """The evidence, and mean and standard deviation of log10 of the two parameters, on a grid."""
    found: dict = {}
    exec(compile(EXAMPLES[0], str(PAGE), "exec"), found)
    axis = (np.arange(200) + 0.5) / 200
    theta = found["problem"].prior_transform(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    logL = found["problem"].loglikelihood_batch(theta)
    weights, x = np.exp(logL - logL.max()), np.log10(theta)
    mean = np.average(x, axis=0, weights=weights)
    return logsumexp(logL) - np.log(len(logL)), mean, np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))


def printed_by(module, tmp_path, more=""):
    """What an example prints in a process of its own: those of nautilus and UltraNest start MPI."""
    (tmp_path / "script.py").write_text("\n".join([*example(module), more]))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_nautilus(truth, tmp_path):
    more = "print(*np.average(np.log10(points), axis=0, weights=np.exp(log_weights)))"
    found = np.array(printed_by("nautilus", tmp_path, more)[-3:], dtype=float)
    logZ, mean, std = truth
    assert abs(found[0] - logZ) < 0.3
    assert (np.abs(found[1:] - mean) < 0.4 * std).all()


def test_ultranest(truth, tmp_path):
    logz, error = map(float, printed_by("ultranest", tmp_path)[-2:])
    assert abs(logz - truth[0]) < 4 * error


def test_emcee(truth, monkeypatch, tmp_path):
    found = namespace_of("emcee", monkeypatch, tmp_path)
    _, mean, std = truth
    x = np.log10(found["samples"])
    assert (np.abs(x.mean(axis=0) - mean) < 0.5 * std).all()
    assert (np.abs(x.std(axis=0) / std - 1) < 0.5).all()


def test_dynesty(truth, monkeypatch, tmp_path):
    found = namespace_of("dynesty", monkeypatch, tmp_path)
    results = found["sampler"].results
    assert abs(results.logz[-1] - truth[0]) < 4 * results.logzerr[-1]


POOL = """
    import dynesty.pool

    with dynesty.pool.Pool(2, loglikelihood, problem.prior_transform) as pool:
        sampler = dynesty.NestedSampler(
            pool.loglike, pool.prior_transform, len(problem.names), nlive=30, rstate=np.random.default_rng(1), pool=pool
        )
        sampler.run_nested(maxiter=60, print_progress=False)
        print(sampler.results.logl[-1] > sampler.results.logl[0])
"""


def test_dynesty_with_a_pool_of_spawned_processes(tmp_path):
    """dynesty.pool spawns: the workers import the script and get the functions of the parent."""
    problem, block = example("dynesty")
    head = block.split("sampler = ")[0]
    (tmp_path / "script.py").write_text(f"{problem}\n{head}\nif __name__ == '__main__':\n{POOL}")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
