"""Terms of the model of a spectrum: what a foreground or systematic error is, and the base class of its options.

Imports neither pandas nor SciPy, because run files are validated with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from lstmfit.datasets.channel_files import Kept
from lstmfit.errors import InputError
from lstmfit.files import user_path
from lstmfit.schema import Block, Positive


@dataclass(frozen=True)
class Component:
    """A term of the model at the channels of the data.

    Parameters
    ----------
    names : tuple of str
        Names of its parameters.
    evaluate : callable
        values (len(names),) -> (n,) mK.
    params : dict of str to dict
        LaTeX label and, if there is one, default prior of each parameter.
    basis : numpy.ndarray, optional
        (n, len(names)) basis of a linear component: evaluate(values) = basis @ values + offset.
    mean, scale : numpy.ndarray, optional
        (len(names),) mean and standard deviation of the prior of the coefficients of a component that can be
        marginalised; for a linear one it is Gaussian, in K.
    marginalise : bool
        Whether the coefficients are marginalised instead of sampled.
    offset : numpy.ndarray, optional
        (n,) mK, the part of a linear component that has no coefficient.
    mixing : numpy.ndarray, optional
        (k, k) matrix if the coefficients of a marginalised component are correlated a priori: coefficients = mean +
        mixing @ x, where the x are independent with standard deviations `scale`.
    regions : tuple of numpy.ndarray, optional
        For a marginalised sum of power laws, its weights (k, n) in mK and ln(nu / nu_c) (n,): evaluate(values) =
        sum_i weights_i (nu / nu_c)^-values_i + offset.
    limits : numpy.ndarray, optional
        (2, k) limits of the uniform prior of its indices.
    """

    names: tuple[str, ...]
    evaluate: Callable
    params: dict[str, dict]
    basis: np.ndarray | None = None
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    marginalise: bool = False
    offset: np.ndarray | None = None
    mixing: np.ndarray | None = None
    regions: tuple[np.ndarray, np.ndarray] | None = None
    limits: np.ndarray | None = None

    @property
    def terms(self) -> np.ndarray:
        """(n, k) what each coefficient of a component that can be marginalised belongs to: basis or weights."""
        return self.basis if self.regions is None else self.regions[0].T

    def mixed(self, x: np.ndarray) -> np.ndarray:
        """Independent coefficients (k,), or a basis for the coefficients (n, k), with the prior correlations applied.

        ``mixed(x)`` is ``mixing @ x``, and ``mixed(basis)`` is ``basis @ mixing``.
        """
        if self.mixing is None:
            return x
        return self.mixing @ x if x.ndim == 1 else x @ self.mixing

    def draw(self, rng: np.random.Generator | None) -> np.ndarray:
        """Coefficients (k,) drawn from their prior; their prior mean if `rng` is None."""
        if rng is None:
            return self.mean
        if self.limits is not None:
            return rng.uniform(*self.limits)
        return self.mean + self.mixed(self.scale * rng.standard_normal(len(self.names)))


class ComponentBlock(Block):
    """Abstract base class of the options of a foreground or systematic error.

    Parameters
    ----------
    model : str
        Name of the model.
    """

    FILES: ClassVar[tuple[str, ...]] = ()
    """Keys whose values are paths of files."""
    MEANING: ClassVar[tuple[str, ...]] = ("reference",)
    """Keys that define what the parameters mean: if they agree, parameters of two blocks can be compared."""

    model: str

    @property
    def files(self) -> dict[str, str]:
        """Paths of the files that it names, by their keys."""
        return {key: path for key in self.FILES if (path := getattr(self, key)) is not None}

    def beside(self, folder: Path) -> "ComponentBlock":
        """Copy with the paths of its files made absolute relative to a folder."""
        changes = {key: str(folder / user_path(path, "foreground file")) for key, path in self.files.items()}
        return self.model_copy(update=changes) if changes else self

    def means_the_same(self, other: "ComponentBlock") -> bool:
        """Whether the parameters have the same meaning as those of another block."""
        return self.model == other.model and all(getattr(self, key) == getattr(other, key) for key in self.MEANING)

    def meaning(self, frequency: np.ndarray) -> str:
        """Model, and reference if it has one, for channels at these frequencies (n,) in MHz, in words."""
        reference = getattr(self.resolved(frequency), "reference", None)
        return self.model if reference is None else f"{self.model} with reference {reference:.6g} MHz"

    def resolved(self, frequency: np.ndarray) -> "ComponentBlock":
        """Copy with all defaults resolved for channels at these frequencies (n,) in MHz."""
        return self

    def build(
        self, frequency: np.ndarray, kept: Kept | None = None, load_emulator: Callable | None = None
    ) -> Component:
        """Build the component for the channels of the data.

        Parameters
        ----------
        frequency : numpy.ndarray
            (n,) MHz.
        kept : Kept, optional
            Numbers of the channels in the data file, if others were left out; for files with one row per channel.
        load_emulator : callable, optional
            Function that loads a `lstmfit.spectrum_emulator.SpectrumEmulator` from a file; for foregrounds that are
            emulated.

        Raises
        ------
        InputError
            The options do not match the channels.
        """
        raise NotImplementedError


class WithReference(ComponentBlock):
    """A model with a reference frequency.

    Parameters
    ----------
    reference : float, optional
        Reference frequency nu_c [MHz]; by default the centre of the band.
    """

    reference: Positive | None = None

    def resolved(self, frequency):
        """As `ComponentBlock.resolved`.

        Raises
        ------
        InputError
            The reference is far from the data, probably in Hz or GHz; powers of frequency would overflow.
        """
        reference = self.reference
        if reference is None:
            return self.model_copy(update={"reference": middle(frequency)})
        if not 1e-3 * np.min(frequency) <= reference <= 1e3 * np.max(frequency):
            raise InputError(
                f"reference is {reference:g} MHz, but the data span {np.min(frequency):.4g} to "
                f"{np.max(frequency):.4g} MHz; give a frequency in MHz near the band"
            )
        return self


def middle(frequency) -> float:
    """Centre of the band in MHz, the default reference frequency."""
    return 0.5 * float(np.min(frequency) + np.max(frequency))


def only_sampled(block):
    """Refuse ``marginalise: true`` of a block whose model is not linear.

    Raises
    ------
    ValueError
        The block asks for it.
    """
    if block.marginalise:
        raise ValueError(
            f"{block.model} is not linear in its parameters and cannot be marginalised; set marginalise: false, or "
            "use log_polynomial, physical_linear, basis or regions"
        )
    return block


def one_each(what: str, value, terms: int) -> list[float]:
    """One number for each term, given a single number or a list.

    Raises
    ------
    InputError
        The list has another length.
    """
    values = [float(v) for v in np.atleast_1d(value)]
    if len(values) not in (1, terms):
        raise InputError(f"foreground: {what} has {len(values)} numbers for {terms} terms; give one, or one per term")
    return values * terms if len(values) == 1 else values
