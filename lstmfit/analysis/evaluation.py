"""Plots of an emulator's errors on test signals, and of its training."""

import numpy as np

from lstmfit.analysis.plots import BLUE, RED, new_figure, save
from lstmfit.analysis.style import own_style
from lstmfit.constants import redshift_to_frequency
from lstmfit.emulator.metrics import rms_error


def edge_distance(emulator, theta) -> np.ndarray:
    """Distance of parameter sets from the nearest edge of the training range.

    Parameters
    ----------
    emulator : Emulator
        The emulator, whose parameters define the range.
    theta : numpy.ndarray
        (n, n_params) physical.

    Returns
    -------
    numpy.ndarray
        (n,) distance in half-widths of the scaled range: 0 at an edge, 1 in the centre.
    """
    low, high = np.array([(p.min, p.max) for p in emulator.parameters]).T
    log = np.array([p.log for p in emulator.parameters])
    low, high, theta = (np.where(log, np.log10(x, where=log, out=np.zeros_like(x)), x) for x in (low, high, theta))
    return 1.0 - np.abs(2.0 * (theta - low) / (high - low) - 1.0).max(axis=1)


@own_style
def errors_picture(emulator, split, path, low: float | None = None, high: float | None = None) -> None:
    """Plot a histogram of the errors, bias and rms by channel, the worst signals, and error against edge distance.

    All panels use the same channels as `lstmfit.emulator.train_emulator.evaluate` with this band.

    Parameters
    ----------
    emulator : Emulator
        The emulator.
    split : lstmfit.datasets.signal_sets.Split
        Test signals, which were not used in training.
    path : path
        PNG file to write.
    low, high : float, optional
        Edges of the band in MHz, inclusive; no limit by default.

    Raises
    ------
    InputError
        No channel lies within the band.
    """
    save(errors_figure(emulator, split, low, high), path)


def errors_figure(emulator, split, low: float | None = None, high: float | None = None):
    """The figure of `errors_picture`."""
    predicted, true, z = emulator(split.theta), split.signal, emulator.redshifts
    _, relative = rms_error(predicted, true, z, low, high)
    nu = redshift_to_frequency(z)
    inside = (nu >= (-np.inf if low is None else low)) & (nu <= (np.inf if high is None else high))
    predicted, true, z = predicted[:, inside], true[:, inside], z[inside]
    # An error of zero cannot be shown on a logarithmic axis.
    percent, residual = np.maximum(100 * relative, 1e-9), predicted - true
    figure = new_figure(figsize=(10.0, 7.0), layout="constrained")
    if low is not None or high is not None:
        figure.suptitle(f"{nu[inside].min():.4g} to {nu[inside].max():.4g} MHz, {inside.sum()} channels")
    (top_left, top_right), (low_left, low_right) = figure.subplots(2, 2)
    top_left.hist(percent, np.geomspace(0.99 * percent.min(), 1.01 * percent.max(), 40), color=BLUE)
    top_left.set_xscale("log")
    _plain_ticks(top_left.xaxis)
    for value, style, name in ((percent.mean(), "-", "mean"), (np.percentile(percent, 95), "--", "95 %")):
        top_left.axvline(value, color=RED, ls=style, lw=1.2, label=f"{name} {value:.3f} %")
    top_left.legend(frameon=False)
    top_left.set(xlabel="relative rms error [%]", ylabel=f"signals (of {len(percent)})")
    top_right.plot(z, np.sqrt(np.mean(residual**2, axis=0)), color=BLUE, label="rms")
    top_right.plot(z, residual.mean(axis=0), color=RED, label="bias")
    top_right.legend(frameon=False)
    top_right.set(xlabel="redshift $z$", ylabel="error [mK]")
    for i in np.argsort(percent)[-3:][::-1]:
        low_left.plot(z, true[i], lw=1.2, label=f"{percent[i]:.2f} %")
        low_left.plot(z, predicted[i], ls=":", color="k", lw=1.0)
    low_left.legend(frameon=False, title="worst three; dotted: emulator", fontsize=9)
    low_left.set(xlabel="redshift $z$", ylabel="$T_{21}$ [mK]")
    distance = edge_distance(emulator, split.theta)
    low_right.semilogy(distance, percent, ".", ms=3, color=BLUE, alpha=0.5)
    _plain_ticks(low_right.yaxis)
    edges = np.quantile(distance, np.linspace(0, 1, 9))
    which = np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, 7)
    means = [percent[which == k].mean() for k in range(8) if (which == k).any()]
    centres = [distance[which == k].mean() for k in range(8) if (which == k).any()]
    low_right.plot(centres, means, "o-", color=RED, ms=4, label="mean")
    low_right.legend(frameon=False)
    low_right.set(xlabel="distance from the edge of the training range", ylabel="relative rms error [%]")
    return figure


def _plain_ticks(axis):
    """Label a log axis with 0.02, 0.05, 0.1 etc. instead of powers of ten, which would overlap."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


@own_style
def learning_curve(record: dict, path) -> None:
    """Plot training and validation error against the number of updates.

    Parameters
    ----------
    record : dict
        Training record of an emulator.
    path : path
        PNG file to write.
    """
    history = record["history"]
    figure = new_figure(figsize=(6.0, 4.0), layout="constrained")
    axis = figure.subplots()
    axis.loglog(history["update"], history["training_percent"], color="0.6", label="training, root mean square")
    axis.loglog(history["update"], history["validation_percent"], color=BLUE, label="validation, mean")
    axis.set(xlabel="update", ylabel="relative rms error [%]")
    axis.legend(frameon=False)
    save(figure, path)
