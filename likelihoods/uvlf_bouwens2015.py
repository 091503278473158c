"""Luminosity functions of Bouwens et al. (2015)."""

import numpy as np

from lstmfit.likelihoods.uvlf import UVLF
from lstmfit.outputs import OutputLayout


class UVLFBouwens2015(UVLF):
    """Bouwens et al. (2015): blank-field counts at z 6, 7, 8 and 10.

    Parameters
    ----------
    redshifts : numpy.ndarray
        Not used.
    layout : OutputLayout, optional
        Outputs of the model.
    **options
        Options of ``uvlf_bouwens2015.yaml``; see `UVLF`.
    """

    def __init__(self, redshifts: np.ndarray, /, layout: OutputLayout | None = None, **options):
        super().__init__("uvlf_bouwens2015", options, layout)
