"""Luminosity functions of Bouwens et al. (2021)."""

import numpy as np

from lstmfit.likelihoods.uvlf import UVLF
from lstmfit.outputs import OutputLayout


class UVLFBouwens2021(UVLF):
    """Bouwens et al. (2021): z 6 to 9, and z 10 of Oesch et al. (2018).

    Parameters
    ----------
    redshifts : numpy.ndarray
        Not used.
    layout : OutputLayout, optional
        Outputs of the model.
    **options
        Options of ``uvlf_bouwens2021.yaml``; see `UVLF`.
    """

    def __init__(self, redshifts: np.ndarray, /, layout: OutputLayout | None = None, **options):
        super().__init__("uvlf_bouwens2021", options, layout)
