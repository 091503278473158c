"""The likelihood of a spectrum in JAX, with the same formulas and precomputed arrays."""

import numpy as np

from lstmfit.errors import InputError
from lstmfit.likelihoods.gaussian import LARGEST_DIFFERENCE, LN_2PI, GaussianNoise, student_series
from lstmfit.likelihoods.global_signal import GlobalSignal


def make_loglikelihood(likelihood: GlobalSignal):
    """Write a global-signal likelihood as a function for `jax.jit`.

    Parameters
    ----------
    likelihood : GlobalSignal
        A likelihood with Gaussian or Student-t noise, fixed or free, or that of the model's sky; the foreground may be
        marginalised, and sampled components must be linear.

    Returns
    -------
    callable
        signal (n_channels,) mK on the emulator's grid, values (len(names),) -> ln L, like the likelihood itself.

    Raises
    ------
    InputError
        A sampled component is not linear in its parameters, or the emulator error is a fraction of the signal.
    """
    if likelihood.nonlinear:
        names = ", ".join(n for c, _ in likelihood.components if c.basis is None for n in c.names)
        raise InputError(
            f"blackjax cannot sample {names}, whose foreground or systematics is not linear in them; "
            "use another sampler: polychord, nautilus"
        )
    if likelihood.marginalised is not None and likelihood.marginalised.basis is None:
        raise InputError(
            "blackjax cannot marginalise the spectral indices of regions; use another sampler: polychord, nautilus"
        )
    if likelihood.fraction:
        raise InputError(
            "blackjax does not support an emulator_error that is a fraction of the signal; use another sampler: "
            "polychord, nautilus"
        )
    gaussian = isinstance(likelihood.density, GaussianNoise)
    logpdf = _gaussian(likelihood.density, likelihood.model_noise) if gaussian else _student(likelihood)
    data, root, operator = likelihood.data, likelihood.root, likelihood.operator
    fixed = likelihood.noise.sigma

    def loglikelihood(signal, values):
        r = data - (root * signal if operator is None else operator @ signal)
        for basis, part in likelihood.linear:
            r = r - basis @ values[part]
        return logpdf(r, values[0] if fixed is None else fixed, values)

    return loglikelihood


def _gaussian(noise, model_noise):
    import jax.numpy as jnp
    from jax.scipy.linalg import solve_triangular

    extra, terms = np.broadcast_to(np.asarray(noise.extra, dtype=float), (noise.n,)), noise.terms

    def fit(r, inverse):
        """Cholesky factor, its product with the conditional mean, that mean, and what it leaves of a residual."""
        weighted = terms.directions * inverse
        factor = jnp.linalg.cholesky(terms.precision + weighted @ terms.directions.T)
        v = solve_triangular(factor, weighted @ r + terms.pull, lower=True)
        best = solve_triangular(factor, v, lower=True, trans=1)
        return factor, v, best, r - best @ terms.directions

    def logpdf(r, sigma, _values):
        variance, possible = sigma * sigma + extra, True
        if model_noise is not None:
            left = r if terms is None else fit(r, 1.0 / variance)[-1]
            sky = model_noise.whole - left
            variance = sigma * sigma + model_noise.rest + (model_noise.scale * sky) ** 2
            possible = ~jnp.any(sky <= 0.0)
        inverse = 1.0 / variance
        norm = -0.5 * (noise.n * LN_2PI + jnp.log(variance).sum()) + noise.log_jacobian
        chi2 = jnp.sum(r * r * inverse)
        if terms is not None:
            factor, v, best, left = fit(r, inverse)
            norm = norm - jnp.log(jnp.diag(factor)).sum() - terms.log_prior_volume
            squares = jnp.sum(left * left * inverse) + jnp.sum(((best - terms.mean) / terms.width) ** 2)
            whole = chi2 + terms.constant
            # Avoid the difference of two large numbers, as in `GaussianNoise.logpdf_whitened`.
            chi2 = jnp.where(whole < LARGEST_DIFFERENCE, whole - v @ v, squares)
        return jnp.where(possible, norm - 0.5 * chi2, -jnp.inf)

    return logpdf


def _student(likelihood):
    import jax.numpy as jnp
    from jax.scipy.special import gammaln

    noise, dof_fixed = likelihood.density, likelihood.noise.dof
    dof_at = likelihood.dof_at
    extra = np.broadcast_to(np.asarray(noise.extra, dtype=float), (noise.n,))

    def logpdf(r, sigma, values):
        dof = values[dof_at] if dof_fixed is None else dof_fixed
        variance = sigma * sigma + extra
        few, many = jnp.minimum(dof, 40.0), 1.0 / jnp.maximum(dof, 40.0)
        exact = gammaln(0.5 * (few + 1.0)) - gammaln(0.5 * few) - 0.5 * jnp.log(np.pi * few)
        series = many * student_series(many * many) - 0.5 * LN_2PI
        norm = noise.n * jnp.where(dof < 40.0, exact, series)
        tail = jnp.log1p(r * r / (dof * variance)).sum()
        return norm + noise.log_jacobian - 0.5 * jnp.log(variance).sum() - 0.5 * (dof + 1.0) * tail

    return logpdf
