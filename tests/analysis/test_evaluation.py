"""Pictures of an emulator's errors: the same channels as the figures beside them."""

import numpy as np
import pytest

from lstmfit import Emulator
from lstmfit.analysis.evaluation import errors_figure, errors_picture
from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.signal_sets import Split
from lstmfit.emulator.train_emulator import evaluate, evaluation_split
from lstmfit.errors import InputError


@pytest.mark.parametrize(("low", "high"), [(None, None), (50.0, 100.0), (50.0, None), (None, 100.0)])
def test_the_picture_is_of_the_band_that_the_figures_are_of(tmp_path, low, high):
    emulator = Emulator.load("echo21")
    split = evaluation_split(emulator, "echo21")
    figure, errors = errors_figure(emulator, split, low, high), evaluate(emulator, split, low, high)
    histogram, channels, worst, _ = figure.axes
    labels = histogram.get_legend_handles_labels()[1]
    assert labels == [f"mean {errors.mean_percent:.3f} %", f"95 % {errors.p95_percent:.3f} %"]
    nu = redshift_to_frequency(emulator.redshifts)
    inside = (nu >= (low or 0)) & (nu <= (high or np.inf))
    for axis in (channels, worst):
        for line in axis.lines:
            np.testing.assert_array_equal(line.get_xdata(), emulator.redshifts[inside])
    label = worst.get_legend_handles_labels()[1][0]
    assert label == f"{errors.max_percent:.2f} %"
    errors_picture(emulator, split, tmp_path / "e.png", low, high)
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")


def test_an_empty_band_is_refused(tmp_path):
    emulator = Emulator.load("echo21")
    with pytest.raises(InputError, match="no channel between 500"):
        errors_picture(emulator, evaluation_split(emulator, "echo21"), tmp_path / "e.png", low=500.0)
    assert not list(tmp_path.iterdir())


def test_a_perfect_emulator_has_a_picture(tmp_path):
    emulator = Emulator.load("echo21")
    split = evaluation_split(emulator, "echo21")
    exact = Split(split.theta[:50], emulator(split.theta[:50]))
    errors_picture(emulator, exact, tmp_path / "e.png")
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")
