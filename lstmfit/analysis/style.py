"""The look of our pictures, whatever the user's matplotlibrc says."""

import functools


def own_style(function):
    """Decorate a function that draws: it runs under Matplotlib's default settings and leaves the user's alone.

    ``text.usetex: True`` without LaTeX would otherwise end it, and a thesis' font size spoil the layout.
    """

    @functools.wraps(function)
    def drawing(*args, **kwargs):
        import matplotlib.style

        with matplotlib.style.context("default", after_reset=True):
            return function(*args, **kwargs)

    return drawing
