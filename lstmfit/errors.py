"""The one error that is the user's to mend."""


class InputError(ValueError):
    """The user's input is wrong: one line that says what was got, what was expected and how to mend it.

    The command line prints the message without a traceback and exits with status 2.
    """
