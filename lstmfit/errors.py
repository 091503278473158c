"""The one error that is the user's to mend, and the hint that goes with an unknown name."""

import difflib


class InputError(ValueError):
    """The user's input is wrong: one line that says what was got, what was expected and how to mend it.

    The command line prints the message without a traceback and exits with status 2.
    """


def did_you_mean(name, known, lead: str = "known are") -> str:
    """End of an error message about an unknown name: the nearest known one, or all of them.

    Parameters
    ----------
    name : object
        What was got.
    known : iterable of str
        What was expected.
    lead : str
        Words before the list of all of them.
    """
    known = [str(k) for k in known]
    lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(str(name).lower(), lower, 1)
    return f"did you mean {lower[close[0]]!r}?" if close else f"{lead} {', '.join(known) or 'none'}"
