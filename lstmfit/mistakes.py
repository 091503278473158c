"""Validate blocks of the run file, and report pydantic's errors with the keys of the run file."""

from collections.abc import Mapping

from pydantic import ValidationError

from lstmfit.errors import InputError, did_you_mean, one_line
from lstmfit.schema import Block, meanings, shown


class NestedMistakes(ValueError):
    """Mistakes in a block whose class depends on its content, such as that of a sampler.

    Parameters
    ----------
    error : pydantic.ValidationError
        The validation error.
    content : object
        Content of the block.
    block : type of Block
        Class of the block.
    at : tuple of str
        Keys that lead to the block.
    """

    def __init__(self, error: ValidationError, content, block: type[Block], at: tuple[str, ...] = ()):
        super().__init__(str(error))
        self.error, self.content, self.block, self.at = error, content, block, at


def validate_nested(block: type[Block], content, *at: str):
    """Validate a block inside a validator of another block.

    Parameters
    ----------
    block : type of Block
        Class of the block.
    content : object
        Content of the block.
    at : str
        Keys that lead from the outer block to this one.

    Raises
    ------
    NestedMistakes
        The content is invalid; `validate_block` of the outer block includes these mistakes in its message.
    """
    try:
        return block.model_validate(content)
    except ValidationError as error:
        raise NestedMistakes(error, content, block, at) from None


def validate_model(models: Mapping[str, type[Block]], what: str, content):
    """Validate a block whose class is given by ``model:``, inside a validator of another block.

    Parameters
    ----------
    models : mapping of str to type of Block
        Classes by the name of their model; the first is the default.
    what : str
        Kind of model, for the message.
    content : object
        A mapping, or a block that has already been validated.

    Returns
    -------
    Block

    Raises
    ------
    ValueError
        The content is not a mapping, or the model is unknown.
    NestedMistakes
        As `validate_nested`.
    """
    if isinstance(content, Block):
        return content
    if not isinstance(content, Mapping):
        raise ValueError(f"{shown(content)} is not a mapping; give {{model: {next(iter(models))}, ...}}")
    model = content.get("model", next(iter(models)))
    if not isinstance(model, str) or model not in models:
        raise ValueError(f"unknown {what} model {shown(model)}; {did_you_mean(str(model), models)}")
    return validate_nested(models[model], content)


def validate_block(block: type[Block], content, where: str):
    """Validate the content of a block.

    Parameters
    ----------
    block : type of Block
        Class of the block.
    content : object
        Content of the block.
    where : str
        Origin of the content, for the message.

    Returns
    -------
    Block

    Raises
    ------
    InputError
        All mistakes in one line.
    """
    try:
        return block.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{where}: {'; also: '.join(_mistakes(error, content, block))}") from None


def _mistakes(error: ValidationError, content, block, at=()) -> list[str]:
    """Messages about all mistakes; unknown keys come first, because they often explain missing ones."""
    found = [(_keys(e["loc"], content), e) for e in error.errors()]
    found.sort(key=lambda item: item[1]["type"] != "extra_forbidden")
    texts = []
    for loc, e in found:
        # If several types are allowed, pydantic reports an error for each; those of the wrong type are dropped.
        others = [keys for keys, other in found if other is not e]
        wrong_kind = e["type"].endswith("_type") or (e["type"] == "literal_error" and not isinstance(e["input"], str))
        if wrong_kind and any(keys[: len(loc)] == loc for keys in others):
            continue
        nested = e.get("ctx", {}).get("error")
        if isinstance(nested, NestedMistakes):
            texts += _mistakes(nested.error, nested.content, nested.block, (*at, *loc, *nested.at))
        else:
            texts.append(_mistake(loc, e, block, at))
    return list(dict.fromkeys(texts or [_mistake(*found[0], block, at)]))


def _keys(loc, content) -> tuple:
    """Location of a mistake in the content, without pydantic's names of alternative types."""
    keys = []
    for i, part in enumerate(loc):
        inside = content if isinstance(content, (dict, list)) else {}
        try:
            content = inside[part]
        except (KeyError, IndexError, TypeError):
            named = isinstance(part, int) or (isinstance(content, dict) and part.isidentifier())
            if i < len(loc) - 1 or not named:
                continue
        keys.append(part)
    return tuple(keys)


def _mistake(loc, error, block, at) -> str:
    place = ".".join(one_line(part, 60) for part in (*at, *loc)) or "the run file"
    if error["type"] == "extra_forbidden":
        return f"unknown key {place}; {did_you_mean(loc[-1], known_keys(block, loc[:-1]))}"
    if error["type"] == "missing":
        meaning = meanings(_block_at(block, loc[:-1])).get(str(loc[-1]))
        return f"{place} is missing{f' ({meaning.short})' if meaning else ''}"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    if error["type"] == "number_type":
        return f"{place}: {error['msg']}"
    if error["type"] == "model_type":
        return f"{place} is {shown(error['input'])}; give a mapping such as {{key: value}}"
    return f"{place} is {shown(error['input'])}; {error['msg'][0].lower()}{error['msg'][1:]}"


def known_keys(block: type[Block], loc=()) -> list[str]:
    """Keys of a block, or of a block inside it, as written in run files.

    Parameters
    ----------
    block : type of Block
        The outer block.
    loc : tuple of str
        Keys that lead to the inner one.
    """
    # `resolved` is written by a fit, not by users.
    fields = _block_at(block, loc).model_fields
    return [field.alias or name for name, field in fields.items() if name != "resolved"]


def _block_at(block, loc):
    """Class of the block to which keys lead."""
    for part in loc:
        fields = block.model_fields
        field = fields.get(part) or next((f for f in fields.values() if f.alias == part), None)
        inner = None if field is None else _block_in(field.annotation)
        # The keys of a mapping are free names, and lead to the block of its values.
        block = inner or block
    return block


def _block_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation
    return next((b for b in map(_block_in, getattr(annotation, "__args__", ())) if b), None)
