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
    """Independent error of each channel that is a fraction of the signal there."""

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
    """Options of `lstmfit.likelihoods.global_signal.GlobalSignal`: its block of the run file.

    Parameters
    ----------
    noise : NoiseBlock, optional
        One of `lstmfit.likelihoods.noise.NOISE`; by default `channels` with the sigma column of the data.
    foreground, systematics : ComponentBlock, optional
        One of `lstmfit.likelihoods.foregrounds.FOREGROUNDS` and of `SYSTEMATICS`, which are added to the signal.
    emulator_error : bool, "diagonal", float or RelativeError
        Whether to add the covariance of the emulator's test errors, or its diagonal, to the noise; or the error of
        every channel, in mK or as a fraction of the signal.
    class_ : str, optional
        Name of the likelihood (``class:``) if the block has another one.
    data : str, optional
        Name of the spectrum; by default that of the block.
    shared : list of str, optional
        Parameters that it has in common with other spectra, see `lstmfit.spectra`.
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
