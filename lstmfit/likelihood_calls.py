"""Calls of the likelihoods of a problem with their parts of the signal's outputs and of the parameters."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstmfit.errors import InputError, one_line
from lstmfit.signal_functions import Signal


class LikelihoodCall:
    """A likelihood with the positions of its arguments in the outputs of the signal and in the parameter vector.

    Parameters
    ----------
    name : str
        Its name in the run file, for messages.
    likelihood : Likelihood
        The likelihood.
    signal : Signal
        The signal, whose `layout` says where each output is.
    names : sequence of str
        All parameters, in the order of the parameter vector (n_all,).
    """

    def __init__(self, name: str, likelihood: Any, signal: Signal, names: Sequence[str]) -> None:
        self.name, self.likelihood, self._names = name, likelihood, names
        self._outputs = [
            (True, signal.layout[name]) if name in signal.layout else (False, names.index(name))
            for name in likelihood.outputs
        ]
        self._columns = np.array([names.index(name) for name in likelihood.names], dtype=int)

    def arguments(self, outputs: np.ndarray, full: np.ndarray) -> list:
        """The outputs that it needs, from all outputs (n_out,) and all parameters (n_all,)."""
        return [(outputs if emitted else full)[where] for emitted, where in self._outputs]

    def values(self, full: np.ndarray) -> np.ndarray:
        """Its own parameters, in its order, from all parameters (n_all,)."""
        return full[self._columns]

    def __call__(self, outputs: np.ndarray, full: np.ndarray) -> float:
        """Ln L for all outputs (n_out,) and all parameters (n_all,); an InputError names a likelihood that fails."""
        try:
            return float(self.likelihood(*self.arguments(outputs, full), full[self._columns]))
        except InputError:
            raise
        except Exception as error:
            # A user's likelihood may raise anything, or return something other than a number.
            said = one_line(f"{type(error).__name__}: {error}", 120)
            at = ", ".join(f"{name}={value:.6g}" for name, value in zip(self._names, full.tolist()))
            message = f"likelihood.{self.name} failed ({said}) at {one_line(at, 180)}"
            raise InputError(message) from error

    def batch(self, outputs: np.ndarray, full: np.ndarray) -> np.ndarray:
        """Ln L (n,) for outputs (n, n_out) and all parameters (n, n_all)."""
        # An inherited method would leave out what a derived class changes.
        if "loglikelihood_batch" in vars(type(self.likelihood)):
            arguments = [(outputs if emitted else full)[:, where] for emitted, where in self._outputs]
            return self.likelihood.loglikelihood_batch(*arguments, full[:, self._columns])
        return np.array([self(*pair) for pair in zip(outputs, full)])


class JoinedCalls:
    """All likelihoods of a problem; those of spectra that can be joined are evaluated by one compiled call.

    Parameters
    ----------
    parts : sequence of LikelihoodCall
        The likelihoods, in the order of the problem.
    """

    def __init__(self, parts: Sequence[LikelihoodCall]) -> None:
        from lstmfit.likelihoods.compiled_spectra import CompiledSpectra

        self._parts = [(part, CompiledSpectra.can_join(part.likelihood)) for part in parts]
        self._spectra = [part for part, joined in self._parts if joined]
        self._compiled = None
        if len(self._spectra) > 1:
            self._compiled = CompiledSpectra([part.likelihood for part in self._spectra])

    def __call__(self, outputs: np.ndarray, full: np.ndarray) -> list[float]:
        """Ln L of each likelihood for all outputs (n_out,) and all parameters (n_all,)."""
        if self._compiled is None:
            return [part(outputs, full) for part, _ in self._parts]
        signal = self._spectra[0].arguments(outputs, full)[0]
        values = iter(self._compiled(signal, [part.values(full) for part in self._spectra]))
        return [next(values) if joined else part(outputs, full) for part, joined in self._parts]
