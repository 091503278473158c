"""Error of the signal of a model, such as that of an emulator, in the likelihood of a spectrum."""

from dataclasses import dataclass

import numpy as np

from lstmfit.errors import InputError
from lstmfit.likelihoods.global_signal_options import LARGEST_FRACTION, RelativeError
from lstmfit.likelihoods.noise import LARGEST_SIGMA


def sum_covariances(*terms):
    """Sum of covariances, each None, diagonal (n,) or full (n, n): None, (n,) or (n, n)."""
    terms = [term for term in terms if term is not None]
    if any(term.ndim == 2 for term in terms):
        terms = [np.diag(term) if term.ndim == 1 else term for term in terms]
    return sum(terms) if terms else None


@dataclass(frozen=True)
class SignalError:
    """Error of the signal, such as that of an emulator.

    Parameters
    ----------
    covariance : numpy.ndarray, optional
        (n_channels, n_channels) mK^2 on the redshift grid of the signal.
    diagonal : bool
        Use only the variances of `covariance` at the channels of the data.
    channel : float
        Independent error in mK, the same in every channel of the data.
    fraction : float
        Independent error of each channel of the data as a fraction of the signal there.
    """

    covariance: np.ndarray | None = None
    diagonal: bool = False
    channel: float = 0.0
    fraction: float = 0.0

    @classmethod
    def from_option(cls, value, covariance: np.ndarray | None) -> "SignalError":
        """Error given by ``emulator_error:``; see `lstmfit.likelihoods.global_signal_options.GlobalSignalOptions`.

        Raises
        ------
        InputError
            The option requires a covariance, but there is none.
        """
        if isinstance(value, RelativeError):
            return cls(fraction=value.fraction)
        if type(value) is float:
            return cls(channel=value)
        if not value:
            return cls()
        if covariance is None:
            raise InputError(
                f"emulator_error is {str(value).lower()}, but the signal has no test-set errors; retrain the emulator "
                "with a test set, give a number in mK, or set emulator_error: false"
            )
        return cls(covariance, value == "diagonal")

    def on_channels(self, matrix: np.ndarray | None, n: int) -> np.ndarray | None:
        """Covariance at n channels in mK^2, (n,) if diagonal or (n, n), given the `interpolation_matrix`."""
        if not 0 <= self.channel <= LARGEST_SIGMA:
            raise InputError(f"emulator_error is {self.channel:g} mK; give a number up to {LARGEST_SIGMA:g} mK")
        if not 0 <= self.fraction <= LARGEST_FRACTION:
            raise InputError(
                f"emulator_error is {self.fraction:g} times the signal; give a fraction up to {LARGEST_FRACTION:g}"
            )
        error = self.covariance
        if error is not None and matrix is not None:
            error = matrix @ error @ matrix.T
        if error is not None and self.diagonal:
            error = np.diagonal(error)
        return sum_covariances(error, np.full(n, self.channel**2) if self.channel else None)
