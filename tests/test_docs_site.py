"""The documentation site: it builds without warnings, and its references are those of the code."""

import subprocess
import sys
from pathlib import Path

import pytest

from lstmfit import config
from lstmfit.errors import InputError

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP / "docs"))
import reference  # noqa: E402


def test_the_site_builds_without_warnings(tmp_path):
    """As `make docs` does, from nothing. A link that leads nowhere and a page outside the contents are warnings."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", ".", tmp_path]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 'url=docs/index.html"' in (tmp_path / "index.html").read_text()
    front = (tmp_path / "docs" / "index.html").read_text()
    for page in (TOP / "docs").rglob("*.md"):
        assert f"{page.relative_to(TOP / 'docs').with_suffix('')}.html" in front or page.name == "index.md", page


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_references_are_those_of_the_code(name):
    """A key without a description raises an error; a page that is out of date differs."""
    written = (TOP / "docs" / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), f"docs/{name} is out of date; to fix this: python docs/reference.py"


def test_every_block_of_the_run_file_is_in_the_reference():
    """Also those that are reached only through validators, such as the models of noise and foregrounds."""
    shown = {block for _, _, block, _ in reference.sections() if isinstance(block, type)}
    for block in list(shown):
        for field in block.model_fields.values():
            for inner in blocks_in(field.annotation):
                below = {cls for cls in shown if issubclass(cls, inner)}
                assert below or inner is config.Sampler, f"{inner} of {block} is not in the reference"


def blocks_in(annotation):
    """Classes of blocks in a type."""
    if isinstance(annotation, type) and issubclass(annotation, reference.Block):
        return {annotation}
    return {block for inner in getattr(annotation, "__args__", ()) for block in blocks_in(inner)}


def test_a_missing_key_is_explained_by_the_same_description():
    message = r"noise is missing \(standard deviation of white noise, mK\); also: .*missing \(seed of the noise\)"
    run = {"signal": "none", "data": {"mock": {"test_signal": 1}}, "likelihood": {"planck_tau": {}}}
    with pytest.raises(InputError, match=message):
        config.validate(run, "run")
