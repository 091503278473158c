"""Style of our plots, independent of the user's matplotlibrc."""

import functools


def own_style(function):
    """Decorator that runs a plotting function with Matplotlib's default settings and then restores the user's.

    Otherwise ``text.usetex: True`` without LaTeX would be an error, and a large font size would spoil the layout.
    """

    @functools.wraps(function)
    def drawing(*args, **kwargs):
        import matplotlib.style

        with matplotlib.style.context("default", after_reset=True):
            return function(*args, **kwargs)

    return drawing
