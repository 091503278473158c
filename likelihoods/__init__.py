"""Likelihoods. They know nothing of samplers or of TensorFlow: the signal reaches them as an argument."""

from lstmfit.likelihoods.gaussian import GaussianNoise
from lstmfit.likelihoods.global_signal import GlobalSignal

__all__ = ["GaussianNoise", "GlobalSignal"]
