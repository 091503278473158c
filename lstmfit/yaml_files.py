"""The one way in and out of YAML: run files, prior sets and the defaults of likelihoods are all read by it."""

import re
from pathlib import Path

import yaml

from lstmfit.errors import InputError, one_line
from lstmfit.schema import shown

MOST_LEVELS = 40
"""Nesting that no run file needs; PyYAML and pydantic are recursive and would fail beyond some hundred levels."""
MOST_NODES = 100_000
"""Values and keys of a file with its aliases written out: a few lines of aliases of aliases can stand for billions."""
MOST_BYTES = 4_000_000

_FLOAT = re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)([eE][-+]?[0-9]+)$|^[-+]?[0-9][0-9_]*\.[0-9_]*$")


class _Loader(yaml.SafeLoader):
    """YAML with 1e-3 as a number (YAML 1.1 wants 1.0e-3) and with repeated keys refused, not overwritten."""


class _Dumper(yaml.SafeDumper):
    """The counterpart of `_Loader`: it quotes the text that the loader would take for a number, like "1e3"."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _mapping(loader, node):
    seen = set()
    for key, _ in node.value:
        # A merge key (<<) takes over the keys of another mapping; those that stand here win.
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
    # In double quotes everything is escaped that YAML would fold or drop, such as line breaks of other alphabets.
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
        What it should be, for the message.

    Returns
    -------
    object
        Mappings, lists, numbers and text.

    Raises
    ------
    InputError
        It cannot be read, is not text, or not YAML: see `parse_yaml`.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(f"{path} has {size / 1e6:.0f} MB; a {what} has a few kB, so this is another file")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8; give a {what} in YAML") from None
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
        Its origin, for the message.

    Raises
    ------
    InputError
        It is not YAML, repeats a key, is nested too deeply, contains itself, or stands for too many values.
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
    # ValueError: an integer of thousands of digits, a date that does not exist.
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
    """Count the nodes with every alias written out."""
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
        raise InputError(f"{where}: its aliases stand for {n:.2g} values; at most {MOST_NODES:,} are read")


def dump_yaml(content) -> str:
    """Write YAML that `parse_yaml` reads back as the same content.

    Parameters
    ----------
    content : object
        Mappings, lists, numbers and text.
    """
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
