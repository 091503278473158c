"""Modes of a training set of foreground spectra: a basis for the foreground model ``basis``."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from lstmfit._version import __version__
from lstmfit.datasets.channel_files import FREQUENCIES, ChannelFile, read_channel_file
from lstmfit.datasets.columns import UNITS
from lstmfit.errors import InputError
from lstmfit.files import replacing
from lstmfit.schema import LARGEST

SMALLEST = 1e-13
"""Singular values below this fraction of the largest one are rounding errors."""


@dataclass(frozen=True)
class Modes:
    """Mean and principal modes of a set of spectra.

    Parameters
    ----------
    frequencies : numpy.ndarray
        (n_channels,) MHz.
    mean : numpy.ndarray
        (n_channels,) K, mean of the set.
    basis : numpy.ndarray
        (n_channels, n) K, modes by descending variance.
    variance : numpy.ndarray
        (n,) variance of the coefficients over the set. The coefficients of different modes are uncorrelated.
    rms, largest : numpy.ndarray
        (n + 1,) K: rms over the set and its channels, and largest absolute value, of what 0, 1, ..., n modes leave.
    n_spectra : int
        Size of the set.
    noise : numpy.ndarray or None
        (n_channels,) K, noise by which the channels were weighted.
    """

    frequencies: np.ndarray
    mean: np.ndarray
    basis: np.ndarray
    variance: np.ndarray
    rms: np.ndarray
    largest: np.ndarray
    n_spectra: int
    noise: np.ndarray | None = None

    def write(self, path) -> None:
        """Write an HDF5 file that the foreground model ``basis`` reads."""
        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            arrays = {FREQUENCIES: self.frequencies, "mean": self.mean, "basis": self.basis, "noise": self.noise}
            for name, array in (arrays | {"covariance": np.diag(self.variance)}).items():
                if array is not None:
                    file[name] = array
            file.attrs["unit"] = "K"
            file.attrs["n_spectra"] = self.n_spectra
            file.attrs["lstmfit_version"] = __version__


def read_spectra(path) -> ChannelFile:
    """Read a training set of spectra.

    Parameters
    ----------
    path : path
        HDF5 or ``.npz`` with the arrays ``spectra`` (n_spectra, n_channels) and ``frequencies`` (n_channels,) in MHz,
        and optionally ``noise`` (n_channels,), the standard deviation of the noise. In HDF5 the attribute ``unit`` (K
        or mK) is the unit of both; K by default.

    Returns
    -------
    ChannelFile
        With these arrays, converted to K.

    Raises
    ------
    InputError
        There is no such file, or its arrays are missing, do not match or are not finite.
    """
    file = read_channel_file(path, "spectra", ("noise",), "set of spectra")
    nu, spectra = file.frequencies, file.arrays["spectra"]
    if nu is None:
        raise InputError(f"{file.name} has no array {FREQUENCIES} (n_channels,) in MHz; add it to the file")
    if spectra.ndim != 2 or spectra.shape[1] != len(nu):
        raise InputError(
            f"{file.name}: spectra has shape {spectra.shape} for {len(nu)} {FREQUENCIES}; one row for each spectrum "
            f"and one column for each frequency are needed: (n_spectra, {len(nu)})"
        )
    bad = ~(np.abs(spectra) <= LARGEST).all(axis=1)
    if bad.any():
        raise InputError(
            f"{file.name}: {bad.sum()} of {len(spectra)} spectra have NaN or infinite values, the first is number "
            f"{bad.argmax()}; remove them"
        )
    factor = UNITS[file.unit] / UNITS["K"]
    arrays = {key: array if key == FREQUENCIES else array * factor for key, array in file.arrays.items()}
    return ChannelFile(file.name, arrays)


def make_modes(source, n: int, noise=None) -> Modes:
    """Principal modes of a set of spectra, by the singular value decomposition of its deviations from their mean.

    With a noise, the deviations are divided by it, so that the modes describe best what matters to a fit, and the
    modes are orthonormal in units of the noise. Without, all channels count alike.

    Parameters
    ----------
    source : path
        The set; see `read_spectra`.
    n : int
        Number of modes.
    noise : path, optional
        File with one standard deviation per channel (`lstmfit.datasets.channel_files.read_channel_file`), in K, instead
        of the array ``noise`` of the set.

    Returns
    -------
    Modes

    Raises
    ------
    InputError
        The set or the noise is invalid, or the set has fewer independent modes.
    """
    file = read_spectra(source)
    nu, spectra = file.frequencies, file.arrays["spectra"]
    n_spectra, n_channels = spectra.shape
    most = min(n_spectra - 1, n_channels - 1)
    if not 1 <= n <= most:
        raise InputError(
            f"{n} modes of {n_spectra} spectra with {n_channels} channels; give 1 to {max(most, 1)}, fewer than either"
            if most >= 1
            else f"{file.name} has {n_spectra} spectra with {n_channels} channels; at least 2 of each are needed"
        )
    sigma = _noise(file, nu, noise)
    weight = 1.0 if sigma is None else 1.0 / sigma
    mean = spectra.mean(axis=0)
    deviations = (spectra - mean) * weight
    left, singular, modes = np.linalg.svd(deviations, full_matrices=False)
    independent = int((singular > SMALLEST * max(singular[0], np.abs(mean * weight).max())).sum())
    if n > independent:
        raise InputError(
            f"{file.name}: the {n_spectra} spectra have {independent} independent modes, not {n}; use -n {independent} "
            "or fewer, or add spectra that differ"
            if independent
            else f"{file.name}: all {n_spectra} spectra are equal, so there are no modes; add spectra that differ"
        )
    # The sign is free: positive where a mode is largest, so that it does not depend on the LAPACK library.
    modes = modes[:n]
    sign = np.sign(modes[np.arange(n), np.abs(modes).argmax(axis=1)])
    modes, left = modes * sign[:, None], left[:, :n] * sign
    rms, largest = [], []
    rest = deviations
    for i in range(n + 1):
        if i:
            rest = rest - singular[i - 1] * np.outer(left[:, i - 1], modes[i - 1])
        in_kelvin = np.abs(rest / weight)
        rms.append(float(np.sqrt((in_kelvin**2).mean())))
        largest.append(float(in_kelvin.max()))
    basis = (modes / weight).T
    variance = singular[:n] ** 2 / (n_spectra - 1)
    return Modes(nu, mean, basis, variance, np.array(rms), np.array(largest), n_spectra, sigma)


def _noise(file: ChannelFile, nu, path):
    """Noise (n_channels,) in K, or None."""
    if path is not None:
        file = read_channel_file(Path(path), "noise", what="noise file")
        sigma = file.on_channels("noise", 1, nu, None) / UNITS["K"]
    elif "noise" in file.arrays:
        sigma = file.arrays["noise"]
    else:
        return None
    if sigma.shape != nu.shape or not (np.isfinite(sigma).all() and (sigma > 0).all()):
        raise InputError(f"{file.name}: the noise must be one positive number in K for each of the {len(nu)} channels")
    return sigma
