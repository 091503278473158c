"""The likelihood of a spectrum for JAX: the same formulas, from the same precomputed arrays."""

import numpy as np

from lstmfit.errors import InputError
from lstmfit.likelihoods.gaussian import LARGEST_DIFFERENCE, LN_2PI, GaussianNoise, student_series
from lstmfit.likelihoods.global_signal import GlobalSignal


def make_loglikelihood(likelihood: GlobalSignal):
    """Write a global-signal likelihood as a function for `jax.jit`.

    Parameters
    ----------
    likelihood : GlobalSignal
        Gaussian or Student-t noise, fixed or free; a marginalised foreground; sampled components that are linear.

    Returns
    -------
    callable
        signal (n_channels,) mK on the emulator's grid, values (len(names),) -> ln L, as the likelihood itself.

    Raises
    ------
    InputError
        A sampled component that is not linear in its parameters.
    """
    if likelihood._other:
        names = ", ".join(n for component, _ in likelihood._components if component.basis is None
                          for n in component.names)  # fmt: skip
        raise InputError(
            f"blackjax cannot sample {names}, whose foreground or systematics is not linear in them; "
            "use another sampler: polychord, nautilus"
        )
    logpdf = _gaussian(likelihood._noise) if isinstance(likelihood._noise, GaussianNoise) else _student(likelihood)
    data, root, operator = likelihood._data, likelihood._root, likelihood._operator

    def loglikelihood(signal, values):
        r = data - (root * signal if operator is None else operator @ signal)
        for basis, part in likelihood._linear:
            r = r - basis @ values[part]
        return logpdf(r, likelihood._sigma if likelihood._sigma is not None else values[0], values)

    return loglikelihood


def _gaussian(noise):
    import jax.numpy as jnp
    from jax.scipy.linalg import solve_triangular

    extra = np.broadcast_to(np.asarray(noise._extra, dtype=float), (noise.n,))

    def logpdf(r, sigma, _values):
        variance = sigma * sigma + extra
        inverse = 1.0 / variance
        norm = -0.5 * (noise.n * LN_2PI + jnp.log(variance).sum()) + noise._log_jacobian
        chi2 = jnp.sum(r * r * inverse)
        if noise._basis is not None:
            weighted = noise._basis * inverse
            factor = jnp.linalg.cholesky(noise._precision + weighted @ noise._basis.T)
            norm = norm - jnp.log(jnp.diag(factor)).sum() - noise._log_prior_volume
            v = solve_triangular(factor, weighted @ r + noise._pull, lower=True)
            best = solve_triangular(factor, v, lower=True, trans=1)
            left = r - best @ noise._basis
            squares = jnp.sum(left * left * inverse) + jnp.sum(((best - noise._mean) / noise._width) ** 2)
            whole = chi2 + noise._constant
            # As `GaussianNoise.logpdf_whitened`: no difference of two large numbers.
            chi2 = jnp.where(whole < LARGEST_DIFFERENCE, whole - v @ v, squares)
        return norm - 0.5 * chi2

    return logpdf


def _student(likelihood):
    import jax.numpy as jnp
    from jax.scipy.special import gammaln

    noise = likelihood._noise
    extra = np.broadcast_to(np.asarray(noise._extra, dtype=float), (noise.n,))

    def logpdf(r, sigma, values):
        dof = likelihood._dof or values[likelihood._dof_at]
        variance = sigma * sigma + extra
        few, many = jnp.minimum(dof, 40.0), 1.0 / jnp.maximum(dof, 40.0)
        exact = gammaln(0.5 * (few + 1.0)) - gammaln(0.5 * few) - 0.5 * jnp.log(np.pi * few)
        series = many * student_series(many * many) - 0.5 * LN_2PI
        norm = noise.n * jnp.where(dof < 40.0, exact, series)
        tail = jnp.log1p(r * r / (dof * variance)).sum()
        return norm + noise._log_jacobian - 0.5 * jnp.log(variance).sum() - 0.5 * (dof + 1.0) * tail

    return logpdf
