"""Priors: distributions of one parameter, and the joint prior that defines the order of theta."""

from lstmfit.priors.distributions import DISTRIBUTIONS, Distribution, make_distribution
from lstmfit.priors.joint import Prior

__all__ = ["DISTRIBUTIONS", "Distribution", "Prior", "make_distribution"]
