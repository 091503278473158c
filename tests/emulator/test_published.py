"""The training of the published 21cmLSTM."""

import numpy as np
import pytest
from networks import write_gem

from lstmfit.datasets.signal_sets import load_signals
from lstmfit.emulator.published import train_published


@pytest.mark.slow
@pytest.mark.ci
def test_training_the_published_layout(tmp_path, rng):
    write_gem(tmp_path / "gem.h5", rng)
    data = load_signals(tmp_path / "gem.h5")
    losses = []
    emulator = train_published(data, epochs=0.04, units=6, progress=lambda *a: losses.append(a))
    assert [a[0] for a in losses] == list(range(1, losses[0][1] + 1))
    assert losses[-1][2] < losses[0][2]
    assert emulator.architecture.steps == 451
    residual = emulator(data.val.theta) - data.val.signal
    scale = data.train.signal.max() - data.train.signal.min()
    assert np.mean(residual**2) / scale**2 == pytest.approx(min(a[2] for a in losses), rel=1e-3)
