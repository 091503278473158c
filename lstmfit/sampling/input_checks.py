"""What every sampler refuses of a likelihood, in the same words."""

import numpy as np

from lstmfit.errors import InputError

MAX_FRUITLESS_DRAWS = 10_000
"""Points without one acceptable likelihood before a run is called hopeless."""


def refuse_infinite(names, theta: np.ndarray) -> None:
    """Raise InputError for a log-likelihood of +inf at theta (n_params,)."""
    named = ", ".join(f"{name} {x:g}" for name, x in zip(names, theta))
    raise InputError(f"the log-likelihood is +inf at {named}; it must be finite, or -inf for impossible")


def refuse_fruitless(n: int, n_nan: int | None = None) -> None:
    """Raise InputError where none of the first n points had a likelihood above zero; n_nan were NaN, if it is known."""
    nan = "" if n_nan is None else f" ({n_nan} NaN)"
    raise InputError(
        f"the likelihood is zero or NaN at all of the first {n} points drawn from the prior{nan}; "
        "check data and prior ranges"
    )
