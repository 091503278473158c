"""The prior transform in JAX, for the distributions that can be traced."""

from lstmfit.errors import InputError
from lstmfit.priors.distributions import LogNormal, LogUniform, Normal, TruncatedNormal, Uniform
from lstmfit.priors.joint import Prior, sort_group


def make_transform(prior: Prior):
    """Write a prior's transform as a function for `jax.jit`.

    Parameters
    ----------
    prior : Prior
        The joint prior.

    Returns
    -------
    callable
        cube (n_params,) -> physical (n_params,), like `Prior.transform`.

    Raises
    ------
    InputError
        A prior is a distribution of scipy.stats, which JAX cannot trace.
    """
    import jax.numpy as jnp

    inverses = [_inverse(name, d) for name, d in prior.independent.items()]

    def transform(cube):
        u = list(cube)
        for group in prior.groups:
            sort_group(u, group)
        return jnp.stack([inverse(x) for inverse, x in zip(inverses, u)])

    return transform


def _inverse(name, distribution):
    import jax.numpy as jnp
    from jax.scipy.special import ndtri

    d = distribution
    if isinstance(d, (Uniform, LogUniform)):
        return d.ppf
    if isinstance(d, Normal):
        return lambda u: d.loc + d.scale * ndtri(u)
    if isinstance(d, LogNormal):
        return lambda u: d.scale * jnp.exp(d.s * ndtri(u))
    if isinstance(d, TruncatedNormal):
        mirror, mass, below = d.mirrored_ends()

        def inverse(u):
            z = -ndtri(below + (1.0 - u) * mass) if mirror else ndtri(below + u * mass)
            return jnp.clip(d.loc + d.scale * z, d.min, d.max)

        return inverse
    raise InputError(
        f"blackjax cannot sample {name} with a prior {d.spec()['dist']!r}; use uniform, loguniform, norm, truncnorm "
        "or lognorm, or another sampler: polychord, nautilus"
    )
