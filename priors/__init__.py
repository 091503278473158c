"""Priors: distributions of one parameter, and the joint prior, which defines the order of theta."""

import importlib

_HOMES = {
    "DISTRIBUTIONS": "distributions",
    "Distribution": "distributions",
    "make_distribution": "distributions",
    "compile_expression": "expressions",
    "Prior": "joint",
    "load_set": "sets",
}

__all__ = ["DISTRIBUTIONS", "Distribution", "Prior", "compile_expression", "load_set", "make_distribution"]


def __getattr__(name):
    """Import submodules at first use, so that expressions are read without SciPy."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
