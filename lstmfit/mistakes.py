"""The mistakes that pydantic finds in a block, in the words of the run file."""

from collections.abc import Mapping

from pydantic import ValidationError

from lstmfit.errors import InputError, did_you_mean, one_line
from lstmfit.schema import Block, shown


class NestedMistakes(ValueError):
    """Mistakes in a block whose kind is only known from its content, such as a sampler's.

    Parameters
    ----------
    error : pydantic.ValidationError
        What is wrong with it.
    content : object
        What was given.
    block : type of Block
        What it should be.
    at : tuple of str
        Keys that lead to it.
    """

    def __init__(self, error: ValidationError, content, block: type[Block], at: tuple[str, ...] = ()):
        super().__init__(str(error))
        self.error, self.content, self.block, self.at = error, content, block, at


def validate_nested(block: type[Block], content, *at: str):
    """Validate a block inside a validator of another one.

    Parameters
    ----------
    block : type of Block
        What it should be.
    content : object
        What was given.
    at : str
        Keys that lead to it from the place of the validator.

    Raises
    ------
    NestedMistakes
        Which `validate_block` of the outer one puts in its place.
    """
    try:
        return block.model_validate(content)
    except ValidationError as error:
        raise NestedMistakes(error, content, block, at) from None


def validate_model(models: Mapping[str, type[Block]], what: str, content):
    """Validate a block whose ``model:`` says which one it is, inside a validator of another one.

    Parameters
    ----------
    models : mapping of str to type of Block
        The blocks by the name of their model; the first is the default.
    what : str
        What they are, for the message.
    content : object
        What was given: a mapping, or such a block.

    Returns
    -------
    Block

    Raises
    ------
    ValueError
        It is not a mapping, or names another model.
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
        What it should be.
    content : object
        What was given.
    where : str
        Its origin, for the message.

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
    """What is wrong, each once, in words; unknown keys first, as they explain missing ones that often stand beside."""
    found = [(_keys(e["loc"], content), e) for e in error.errors()]
    found.sort(key=lambda item: item[1]["type"] != "extra_forbidden")
    texts = []
    for loc, e in found:
        # Where several kinds of block are possible, pydantic reports each: those of the wrong kind say nothing.
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
    """Place of a mistake in the content, without pydantic's names of the kinds that a block can be of."""
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
        return f"{place} is missing"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    if error["type"] == "number_type":
        return f"{place}: {error['msg']}"
    if error["type"] == "model_type":
        return f"{place} is {shown(error['input'])}; give a mapping, like {{key: value}}"
    return f"{place} is {shown(error['input'])}; {error['msg'][0].lower()}{error['msg'][1:]}"


def known_keys(block: type[Block], loc=()) -> list[str]:
    """Keys of a block, or of one inside it, as users write them.

    Parameters
    ----------
    block : type of Block
        The outer block.
    loc : tuple of str
        Keys that lead to the inner one.
    """
    for part in loc:
        fields = block.model_fields
        field = fields.get(part) or next((f for f in fields.values() if f.alias == part), None)
        inner = None if field is None else _block_in(field.annotation)
        # The keys of a mapping are the user's own: they lead to no other block than its values'.
        block = inner or block
    # What a fit writes is not for users to write.
    return [field.alias or name for name, field in block.model_fields.items() if name != "resolved"]


def _block_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation
    return next((b for b in map(_block_in, getattr(annotation, "__args__", ())) if b), None)
