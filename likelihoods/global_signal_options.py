"""Options of the global-signal likelihood. Imports neither pandas nor SciPy, as run files are validated with it."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from lstmfit.errors import InputError
from lstmfit.likelihoods.foregrounds import ForegroundOptions, SystematicsOptions
from lstmfit.likelihoods.noise import Channels, NoiseBlock, NoiseOptions
from lstmfit.mistakes import validate_nested
from lstmfit.schema import Block, Positive, shown, to_number

LARGEST_FRACTION = 10.0


class RelativeError(Block):
    """Independent error of each channel that is a fraction of the signal there.

    Parameters
    ----------
    fraction : float
        Standard deviation of the error, relative to the signal.
    """

    fraction: Annotated[Positive, Field(le=LARGEST_FRACTION)]


def _emulator_error(value):
    if isinstance(value, (dict, RelativeError)):
        return validate_nested(RelativeError, value)
    if value is True or value is False or value == "diagonal":
        return value
    try:
        number = to_number(value)
    except ValueError:
        number = 0.0
    if number > 0:
        return number
    raise ValueError(
        f"{shown(value)} is not true, false, diagonal or a positive number in mK (or a fraction of the signal, as in "
        "{fraction: 0.25})"
    )


class GlobalSignalOptions(Block):
    """Options of the likelihood of a spectrum, `lstmfit.likelihoods.global_signal.GlobalSignal`.

    Parameters
    ----------
    class_ : str, optional
        Name of the likelihood, if its block has another name.
    data : str, optional
        Name of the spectrum; by default that of the block.
    shared : list of str, optional
        Parameters that it has in common with other spectra; none by default. See `lstmfit.spectra`.
    noise : NoiseBlock, optional
        Noise model, one of `lstmfit.likelihoods.noise.NOISE`; by default ``channels`` with the column sigma of the
        data.
    foreground : ComponentBlock, optional
        Foreground that is added to the signal, one of `lstmfit.likelihoods.foregrounds.FOREGROUNDS`; none by default.
    systematics : ComponentBlock, optional
        Systematic error that is added to the signal, one of `lstmfit.likelihoods.foregrounds.SYSTEMATICS`; none by
        default.
    emulator_error : bool, "diagonal", float or RelativeError
        Error of the signal that is added to the noise: true for the covariance of the errors of the emulator on its
        test set, ``diagonal`` for the diagonal of it, a number for the error of every channel [mK], or
        ``{fraction: X}`` for an error of X times the signal.
    """

    class_: str | None = Field(None, alias="class")
    data: str | None = None
    shared: list[str] | None = None

    noise: NoiseOptions | None = None
    foreground: ForegroundOptions | None = None
    systematics: SystematicsOptions | None = None
    emulator_error: Annotated[RelativeError | bool | float | str, BeforeValidator(_emulator_error)] = False

    def noise_of(self, spectrum) -> NoiseBlock:
        """Options of the noise; by default the sigma column of the data.

        Raises
        ------
        InputError
            There is neither.
        """
        if self.noise is not None:
            return self.noise
        if spectrum.sigma is None:
            raise InputError(
                "likelihood.global_signal: noise is missing, and the data have no sigma column; give for example "
                "noise: {model: white, sigma: 25}, or name the column: data: {columns: {..., sigma: COLUMN}}"
            )
        return Channels()

    def beside(self, folder: Path) -> "GlobalSignalOptions":
        """Copy with file paths relative to a folder made absolute."""
        blocks = {"noise": self.noise, "foreground": self.foreground}
        return self.model_copy(update={key: b.beside(folder) for key, b in blocks.items() if b is not None})
