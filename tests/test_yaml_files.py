"""The one YAML loader and its dumper."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lstmfit import config
from lstmfit.errors import InputError
from lstmfit.yaml_files import dump_yaml, parse_yaml, read_yaml

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30) | st.sampled_from(
    ["1e3", "1.0", "1_000", "0x10", "0o7", "12:30", "yes", "null", "~", ".nan", ".inf", "2020-01-01", "", " a", "a: b",
     "#", "- x", "&a", "*a", "!!str", "'", '"', "\ttab", "1e-3 ", "<<", "=", "-", "?", "\u0085", "\ufeff", "%"]
)  # fmt: skip
NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
CONTENT = st.recursive(
    TEXT | NUMBERS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(CONTENT)
@settings(max_examples=300, deadline=None)
def test_what_is_dumped_is_read_back(content):
    """0.1 wrote `-o 1e3` in a way that its own loader took for a number, and the folder could not be read any more."""
    again = parse_yaml(dump_yaml(content), "test")
    assert again == content
    assert repr(again) == repr(content)


@given(st.dictionaries(TEXT, TEXT, min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_the_text_of_a_resolved_run_file_survives(texts):
    content = {
        "emulator": "echo21",
        "data": {"file": "x.csv"},
        "likelihood": {"global_signal": {"noise": {"model": "white", "sigma": 25}}},
        "params": {f"p{i}": {"value": 1.0, "latex": text} for i, text in enumerate(texts)},
    }
    run = config.validate(content, "run")
    dumped = run.model_dump(by_alias=True, exclude_none=True)
    assert config.validate(parse_yaml(dump_yaml(dumped), "run"), "run") == run


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E5", 1e5), ("-.5e+2", -50.0), ("1.", 1.0), ("1_000", 1000), ("1e", "1e"), ("e3", "e3")],
)
def test_numbers(text, value):
    assert parse_yaml(f"a: {text}", "test") == {"a": value}


def test_merge_keys():
    text = "base: &b {min: 1, max: 2}\nx: {<<: *b, max: 3}\ny: {<<: [*b, {dist: uniform}]}"
    content = parse_yaml(text, "test")
    assert content["x"] == {"min": 1, "max": 3}
    assert content["y"] == {"min": 1, "max": 2, "dist": "uniform"}


BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"not valid YAML in line 3: key 'a' appears twice"),
        ("a: {b: 1, b: 2}", r"key 'b' appears twice"),
        (BOMB, r"its aliases expand to .* values"),
        ("a: &a [1, *a]", r"contains itself"),
        ("[" * 400 + "]" * 400, r"nested more than 40 levels"),
        ("a: " + "{a: " * 400 + "1" + "}" * 400, r"nested more than 40 levels"),
        ("{[1, 2]: 3}", r"\[1, 2\] cannot be a key"),
        ("a: " + "9" * 5000, r"not valid YAML"),
        ("a: 2001-13-45", r"not valid YAML: month must be in 1..12"),
        ("a: \x00", r"not valid YAML"),
        ("a: !!python/object/apply:os.system [echo]", r"could not determine a constructor"),
        ("a: *missing", r"undefined alias"),
        ("<<: 3", r"not valid YAML"),
        ("a: 1\n---\nb: 2", r"not valid YAML"),
        ("a: [1", r"not valid YAML in line 1"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(InputError, match=message) as error:
        parse_yaml(text, "run.yaml")
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_files_that_are_not_yaml(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_yaml(path)
    path.write_bytes(b"\x00" * 5_000_000)
    with pytest.raises(InputError, match="5 MB, but a run file has only a few kB"):
        read_yaml(path)
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        read_yaml(tmp_path)
    with pytest.raises(InputError, match=r"cannot read .*: No such file"):
        read_yaml(tmp_path / "none")
    path.write_bytes("\ufeffa: 1".encode())
    assert read_yaml(path) == {"a": 1}


def test_nobody_else_loads_yaml():
    """One loader for all files: a name given twice in a prior set was silently overwritten by another one."""
    from pathlib import Path

    top = Path(config.__file__).parents[1]
    for path in (p for folder in ("lstmfit", "likelihoods", "priors") for p in (top / folder).rglob("*.py")):
        if path.name != "yaml_files.py":
            assert not re.search(r"^\s*(import|from) yaml\b", path.read_text(), re.MULTILINE), path


def test_the_public_yaml_library_reads_what_is_dumped():
    """Other people's scripts read our run files."""
    content = {"a": 1e-3, "b": "1e3", "c": [1, 2.5, None, True], "d": {"e": "x: y"}}
    assert yaml.safe_load(dump_yaml(content)) == content
