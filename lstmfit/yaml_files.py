"""Reading and writing YAML: run files, parameter sets and the defaults of likelihoods."""

import re
from pathlib import Path

import yaml

from lstmfit.errors import InputError, one_line
from lstmfit.schema import shown

MOST_LEVELS = 40
"""Maximum nesting depth; PyYAML and pydantic are recursive and would fail beyond several hundred levels."""
MOST_NODES = 100_000
"""Maximum number of keys and values with aliases expanded; a few lines of nested aliases can stand for billions."""
MOST_BYTES = 4_000_000

_FLOAT = re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)([eE][-+]?[0-9]+)$|^[-+]?[0-9][0-9_]*\.[0-9_]*$")


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number (YAML 1.1 requires 1.0e-3) and repeated keys are errors."""


class _Dumper(yaml.SafeDumper):
    """Counterpart of `_Loader` that quotes text that the loader would read as a number, such as "1e3"."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _mapping(loader, node):
    seen = set()
    for key, _ in node.value:
        # A merge key (<<) adds the keys of another mapping; keys given here take precedence.
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        name = loader.construct_object(key, deep=True)
        if not isinstance(name, (str, int, float)):
            raise yaml.constructor.ConstructorError(None, None, f"{shown(name)} cannot be a key", key.start_mark)
        if name in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {shown(name)} appears twice", key.start_mark)
        seen.add(name)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _text(dumper, text):
    # Double quotes escape everything that YAML would fold or drop, such as Unicode line separators.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path, what: str = "run file") -> object:
    """Read a YAML file.

    Parameters
    ----------
    path : path
        The file.
    what : str
        Kind of file, for the message.

    Returns
    -------
    object
        Mappings, lists, numbers and text.

    Raises
    ------
    InputError
        The file cannot be read, or is not text or not YAML; see `parse_yaml`.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(f"{path} has {size / 1e6:.0f} MB, but a {what} has only a few kB; give a {what} in YAML")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; give a {what} in YAML") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a {what} in YAML") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, where) -> object:
    """Content of a YAML document.

    Parameters
    ----------
    text : str
        The document.
    where : path or str
        Origin of the document, for the message.

    Raises
    ------
    InputError
        The document is not YAML, repeats a key, is nested too deeply, contains itself, or has too many values.
    """
    try:
        _check_depth(text, where)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node, where)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    # ValueError: an integer with thousands of digits, or an invalid date.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        mark = getattr(error, "problem_mark", None)
        at = "" if mark is None else f" in line {mark.line + 1}"
        what = one_line(getattr(error, "problem", None) or error)
        raise InputError(f"{where} is not valid YAML{at}: {what}") from None


def _check_depth(text, where):
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_LEVELS:
                line = event.start_mark.line + 1
                raise InputError(f"{where}: line {line} is nested more than {MOST_LEVELS} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_size(node, where):
    """Check the number of nodes with all aliases expanded."""
    sizes, open_nodes = {}, set()

    def size(node):
        key = id(node)
        if key in open_nodes:
            raise InputError(f"{where}: the value of line {node.start_mark.line + 1} contains itself through an alias")
        if key not in sizes:
            open_nodes.add(key)
            children = []
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in node.value for child in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[key] = 1 + sum(size(child) for child in children)
            open_nodes.discard(key)
        return sizes[key]

    n = size(node)
    if n > MOST_NODES:
        raise InputError(f"{where}: its aliases expand to {n:.2g} values, but at most {MOST_NODES:,} are allowed")


def dump_yaml(content) -> str:
    """Write YAML that `parse_yaml` reads back as the same content.

    Parameters
    ----------
    content : object
        Mappings, lists, numbers and text.
    """
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
