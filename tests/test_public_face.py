"""What `import lstmfit` offers: names, annotations and help."""

import configparser
import inspect
import re
from pathlib import Path

import pytest
from helpers import tiny_run
from numpydoc.docscrape import FunctionDoc

import lstmfit
from lstmfit.analysis.finished_run import FinishedRun
from lstmfit.errors import InputError
from lstmfit.problem import Problem

TOP = Path(__file__).parents[1]
FUNCTIONS = [name for name in lstmfit.__all__ if name not in ("Emulator", "__version__")]
METHODS = [
    member
    for owner in (lstmfit.Emulator, FinishedRun, Problem)
    for name, member in inspect.getmembers(owner, inspect.isfunction)
    if not name.startswith("_") or name == "__call__"
]


def test_the_names_are_those_of_the_design():
    assert {*FUNCTIONS} == {"compare", "fit", "measure_bias", "read_run", "simulate", "train"}
    assert {*lstmfit.__all__} <= {*dir(lstmfit)}
    assert all(f"\n{name}" in lstmfit.__doc__ for name in (*FUNCTIONS, "Emulator"))
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        _ = lstmfit.fits


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_describes_every_parameter(name):
    function = getattr(lstmfit, name)
    described = [part.strip("* ") for p in FunctionDoc(function)["Parameters"] for part in p.name.split(",")]
    assert described == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__qualname__)
def test_methods_are_described_and_annotated(method):
    assert inspect.getdoc(method)
    signature = inspect.signature(method)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in list(signature.parameters.values())[1:]:
        assert parameter.annotation is not inspect.Parameter.empty, parameter


def test_mypy_checks_the_annotations_of_what_the_documentation_imports():
    read = configparser.ConfigParser()
    read.read(TOP / "setup.cfg")
    (strict,) = (
        name.removeprefix("mypy-").split(",")
        for name in read.sections()
        if name.startswith("mypy-") and read[name].get("disallow_untyped_defs") == "True"
    )
    page = (TOP / "docs" / "python.md").read_text()
    named = {*re.findall(r"from (lstmfit[\w.]*) import", page), *re.findall(r"`(lstmfit[\w.]*)\.\w+(?:\(|`)", page)}
    assert len(named) > 4
    assert named <= {*strict}
    assert (Path(lstmfit.__file__).parent / "py.typed").is_file()


def test_runs_are_compared_as_objects_and_as_folders(tmp_path):
    run = lstmfit.fit(tiny_run(), tmp_path / "a")
    result = lstmfit.compare(run, tmp_path / "a").result
    assert result["parameters"]["fX"]["bias"] == 0.0
    with pytest.raises(InputError, match="compare needs two or more chains; give their run folders"):
        lstmfit.compare(run)


def test_training_is_refused_before_the_signals_are_read(tmp_path):
    (tmp_path / "mine.h5").write_text("mine")
    with pytest.raises(InputError, match=r"mine.h5 already exists; use --force to replace it"):
        lstmfit.train(tmp_path / "none.h5", tmp_path / "mine.h5")
    assert (tmp_path / "mine.h5").read_text() == "mine"
