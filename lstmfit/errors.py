"""The error for invalid input, and helpers for its message."""

import contextlib
import difflib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

LONGEST = 390
"""Maximum length of a message; a longer one is shortened in the middle, because its end says how to fix the error."""


class InputError(ValueError):
    """Invalid input: one line that says what was given, what is expected and how to fix it.

    The command line prints the message without a traceback and exits with status 2.

    Parameters
    ----------
    message : str
        The message. Line breaks and control characters are removed, and a long message is shortened in the middle.
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message, LONGEST))


@contextlib.contextmanager
def naming(place: str, unnamed: str) -> Iterator[None]:
    """Name a place in the run file in errors and warnings.

    Parameters
    ----------
    place : str
        Dotted key, such as ``data.lst1``.
    unnamed : str
        Dotted key by which the messages call the block, ``data``; it is replaced. If it is the place itself, nothing is
        changed.
    """
    if place == unnamed:
        yield
        return
    caught: list = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except InputError as error:
        raise InputError(_placed(str(error), place, unnamed)) from error
    finally:
        for warning in caught:
            warnings.warn(_placed(str(warning.message), place, unnamed), warning.category, stacklevel=4)


def _placed(text: str, place: str, unnamed: str) -> str:
    if text.startswith((f"{unnamed}:", f"{unnamed}.")):
        return place + text[len(unnamed) :]
    return f"{place}: {text}"


def one_line(text: object, most: int = 200) -> str:
    """Convert any text to one printable line of at most `most` characters, shortened in the middle if necessary.

    Parameters
    ----------
    text : object
        Object to be converted with `str`.
    most : int
        Maximum number of characters.
    """
    line = " ".join(str(text).split())
    # A file name or a value may contain anything, such as terminal escape sequences and lone surrogates.
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    if len(line) <= most:
        return line
    tail = most // 2
    return f"{line[: most - tail - 5]} ... {line[-tail:]}"


def listed(names: Iterable[Any], most: int = 12) -> str:
    """Join names by commas, and abbreviate the list after `most` names.

    Parameters
    ----------
    names : iterable of object
        Objects to be converted with `str`.
    most : int
        Maximum number of names.
    """
    names = [one_line(name, 60) for name in names]
    if len(names) <= most:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def did_you_mean(name: Any, known: Iterable[Any], lead: str = "known are") -> str:
    """End of an error message about an unknown name: the closest known name, or all known names.

    Parameters
    ----------
    name : object
        The unknown name.
    known : iterable of str
        Known names.
    lead : str
        Words before the list of all known names.
    """
    known = [str(k) for k in known]
    lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(str(name).lower()[:100], lower, 1)
    return f"did you mean {lower[close[0]]!r}?" if close else f"{lead} {listed(known)}"
