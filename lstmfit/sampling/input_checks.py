"""Checks of likelihood values that all samplers share."""

import numpy as np

from lstmfit.errors import InputError

MAX_FRUITLESS_DRAWS = 10_000
"""A run is aborted when this many points have been drawn and none had a non-zero likelihood."""


def raise_infinite_likelihood(names, theta: np.ndarray) -> None:
    """Raise InputError for a log-likelihood of +inf at theta (n_params,)."""
    named = ", ".join(f"{name} {x:g}" for name, x in zip(names, theta))
    raise InputError(f"the log-likelihood is +inf at {named}; it must be finite, or -inf where the likelihood is zero")


def raise_no_finite_likelihood(n: int, n_nan: int | None = None) -> None:
    """Raise InputError if none of the first n points had a non-zero likelihood; n_nan of them were NaN, if known."""
    nan = "" if n_nan is None else f" ({n_nan} NaN)"
    raise InputError(
        f"the likelihood is zero or NaN at all of the first {n} points drawn from the prior{nan}; "
        "check the data and the prior ranges"
    )
