"""Priors: distributions of one parameter, and the joint prior that defines the order of theta."""

from lstmfit.priors.distributions import DISTRIBUTIONS, Distribution, make_distribution
from lstmfit.priors.expressions import compile_expression
from lstmfit.priors.joint import Prior
from lstmfit.priors.sets import load_set

__all__ = ["DISTRIBUTIONS", "Distribution", "Prior", "compile_expression", "load_set", "make_distribution"]
