"""Input data: spectra to fit, and sets of signals for training."""
