"""Data that go in: spectra to fit, sets of signals to train on."""
