"""Likelihoods. They know nothing of samplers or of TensorFlow: the signal reaches them as an argument."""

from lstmfit.likelihoods.base import LIKELIHOODS, Likelihood, make_likelihood
from lstmfit.likelihoods.gaussian import GaussianNoise, StudentNoise
from lstmfit.likelihoods.global_signal import GlobalSignal
from lstmfit.likelihoods.noise import Noise

__all__ = [
    "LIKELIHOODS",
    "GaussianNoise",
    "GlobalSignal",
    "Likelihood",
    "Noise",
    "StudentNoise",
    "make_likelihood",
]
