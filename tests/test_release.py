"""What is released: version, declared imports, sdist and wheel."""

import ast
import configparser
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import lstmfit

TOP = Path(__file__).parents[1]
FOLDERS = ("lstmfit", "likelihoods", "priors")
INSIDE = {"pydantic_core": "pydantic"}
"""Modules of a package that another one pins exactly."""
BESIDE = {"pypolychord", "py21cmemu"}
"""Packages that are not on PyPI, or that are read without being imported."""


def declared():
    """Names of the distributions that setup.cfg requires, and those of each extra."""
    read = configparser.ConfigParser()
    read.read(TOP / "setup.cfg")

    def names(text):
        return {normal(found[0]) for found in re.findall(r"^([A-Za-z][\w-]*)(\[|>=|<|;|$)", text, re.M)}

    extras = {name: names(text) for name, text in read["options.extras_require"].items()}
    return names(read["options"]["install_requires"]), extras


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def imported():
    """Distributions that the package imports, each with a file that does so."""
    homes, found = packages_distributions(), {}
    for path in (path for folder in FOLDERS for path in (TOP / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - {*sys.stdlib_module_names, "lstmfit", *BESIDE}:
                (home,) = set(homes.get(name, [name]))
                found[normal(INSIDE.get(name, home))] = path
    return found


def test_every_import_is_declared():
    """Also what another requirement happens to bring along."""
    required, extras = declared()
    known = required.union(*(names for extra, names in extras.items() if extra not in ("test", "docs")))
    assert {name: path for name, path in imported().items() if name not in known} == {}


def test_every_requirement_is_imported():
    assert declared()[0] - {*imported()} == set()


def test_the_version_is_the_same_everywhere():
    assert yaml.safe_load((TOP / "CITATION.cff").read_text())["version"] == lstmfit.__version__
    assert re.search(r"^## (\S+)", (TOP / "CHANGELOG.md").read_text(), re.M)[1] == lstmfit.__version__


@pytest.mark.parametrize("path", sorted((TOP / ".github" / "workflows").glob("*.yml")), ids=lambda p: p.stem)
def test_the_workflows_run_what_exists(path):
    targets = set(re.findall(r"^([\w-]+):", (TOP / "Makefile").read_text(), re.M))
    content = yaml.safe_load(path.read_text())
    commands = [step["run"] for job in content["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        words = command.removeprefix("sudo ").split()
        assert (words[0] == "make" and {*words[1:]} <= targets) or (TOP / words[0]).is_file(), command


USE = """
import lstmfit

run = lstmfit.read_run("nautilus")
reveal_type(run)
reveal_type(run.problem.loglikelihood_batch([[1.0]], return_derived=True))
lstmfit.fit(1)
"""


@pytest.mark.slow
def test_sdist_and_wheel_fit_the_demo_without_a_compiler(tmp_path):
    """The wheel is built from the sdist, so that this is complete too; mypy finds the annotations of the wheel."""
    dist = tmp_path / "dist"
    subprocess.run([sys.executable, "-m", "build", "-o", dist, TOP], check=True, capture_output=True, timeout=600)
    (wheel,) = dist.glob("*.whl")
    assert wheel.name == f"lstmfit-{lstmfit.__version__}-py3-none-any.whl"
    smoke = [TOP / ".ci" / "smoke", wheel, tmp_path / "smoke"]
    done = subprocess.run(smoke, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the smoke test of lstmfit" in done.stdout
    script = tmp_path / "smoke" / "use.py"
    script.write_text(USE)
    python = tmp_path / "smoke" / "venv" / "bin" / "python"
    mypy = [sys.executable, "-m", "mypy", "--python-executable", python, script]
    said = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600).stdout
    assert 'Revealed type is "lstmfit.analysis.finished_run.FinishedRun"' in said
    assert 'Revealed type is "tuple[numpy.ndarray' in said
    assert 'Argument 1 to "fit" has incompatible type "int"' in said
