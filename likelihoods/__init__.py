"""Likelihoods. They are independent of samplers and TensorFlow: the signal is passed to them as an argument."""

import importlib

_HOMES = {
    "LIKELIHOODS": "base",
    "Likelihood": "base",
    "make_likelihood": "base",
    "GaussianNoise": "gaussian",
    "StudentNoise": "gaussian",
    "GlobalSignal": "global_signal",
    "Noise": "noise",
}

__all__ = ["LIKELIHOODS", "GaussianNoise", "GlobalSignal", "Likelihood", "Noise", "StudentNoise", "make_likelihood"]


def __getattr__(name):
    """Import submodules at first use, so that a run file is validated without SciPy."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
