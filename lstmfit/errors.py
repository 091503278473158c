"""The error that the user can fix, and the pieces that its message is made of."""

import difflib

LONGEST = 390
"""Characters of a message; a longer one is cut in the middle, since its end says how to fix it."""


class InputError(ValueError):
    """The user's input is wrong: one line that says what was given, what is expected and how to fix it.

    The command line prints the message without a traceback and exits with status 2.

    Parameters
    ----------
    message : str
        Line breaks and control characters are taken out, and what is too long is cut in the middle.
    """

    def __init__(self, message):
        super().__init__(one_line(message, LONGEST))


def one_line(text, most: int = 200) -> str:
    """Any text as one printable line of at most `most` characters; cut in the middle where it is longer.

    Parameters
    ----------
    text : object
        Its `str` is taken.
    most : int
        Characters.
    """
    line = " ".join(str(text).split())
    # A file name or a value may hold anything, escape sequences of the terminal and lone surrogates included.
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    if len(line) <= most:
        return line
    tail = most // 2
    return f"{line[: most - tail - 5]} ... {line[-tail:]}"


def listed(names, most: int = 12) -> str:
    """Names between commas, the first `most` of them where there are more.

    Parameters
    ----------
    names : iterable of object
        Their `str` is taken.
    most : int
        Names.
    """
    names = [one_line(name, 60) for name in names]
    if len(names) <= most:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def did_you_mean(name, known, lead: str = "known are") -> str:
    """End of an error message about an unknown name: the nearest known one, or all of them.

    Parameters
    ----------
    name : object
        What was given.
    known : iterable of str
        What was expected.
    lead : str
        Words before the list of all of them.
    """
    known = [str(k) for k in known]
    lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(str(name).lower()[:100], lower, 1)
    return f"did you mean {lower[close[0]]!r}?" if close else f"{lead} {listed(known)}"
