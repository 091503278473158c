"""Plots of a fit: corner plot and signal posterior."""

import numpy as np
from scipy.integrate import trapezoid

from lstmfit.analysis.chains import Run
from lstmfit.analysis.contours import plot_2d
from lstmfit.analysis.reweight import choose_points
from lstmfit.analysis.signal_posterior import draw_signals, without_foreground
from lstmfit.analysis.style import own_style
from lstmfit.constants import redshift_to_frequency
from lstmfit.errors import InputError, one_line
from lstmfit.files import replacing
from lstmfit.notebook import let_notebook_show

BLUE, GREY, RED = "#1f5fa8", "#8c8c8c", "#c8321e"
COLORS = (BLUE, RED, "#2e8b57", "#7b4fa3", "#c98a1b", "#3aa6b9")
"""Colours of several chains in one plot; the last chain is grey."""
LONGEST = 0.95
"""Length of a label relative to its panel, above which the labels of a corner plot are tilted."""
N_CORNER = 2000
"""Number of points of each chain in a plot of several chains."""


def new_figure(*args, **kwargs):
    """Create a figure without pyplot, so that no window system and no global state are involved.

    In a notebook it is shown like those of pyplot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(*args, **kwargs)
    FigureCanvasAgg(figure)
    let_notebook_show(Figure)
    return figure


@own_style
def save(figure, path):
    """Write a figure as PNG, atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png", bbox_inches="tight")


def corner(run: Run, path) -> None:
    """Write `corner_figure` as PNG to `path`."""
    save(corner_figure(run), path)


def signal(run: Run, path) -> None:
    """Write `signal_figure` as PNG to `path`."""
    save(signal_figure(run), path)


@own_style
def corner_figure(run: Run):
    """Corner plot with log-uniform parameters in log10, the truth, and the prior densities on the diagonal.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from anesthetic import make_2d_axes
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    samples, truth, names = run.natural(), run.truth(), list(run.problem.names)
    size = max(4.0, 1.45 * len(names))
    figure = new_figure(figsize=(size, size))
    labels = {name: samples.get_label(name) for name in names}
    _, axes = make_2d_axes(names, labels=labels, fig=figure, upper=False, ticks="outer")
    pointed = plot_2d(samples, axes, BLUE)
    for name in names:
        _draw_prior(axes.loc[name, name].twin, run.problem.prior.distributions[name])
    handles = [Patch(color=BLUE, label="posterior (68, 95 %)"), Line2D([], [], color=GREY, lw=1.2, label="prior")]
    if pointed:
        handles.append(_points_handle(BLUE))
    if truth:
        axes.axlines(truth, color=RED, lw=1.0, ls="--")
        handles.append(Line2D([], [], color=RED, lw=1.0, ls="--", label="truth"))
    figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(0.9, 0.88), frameon=False, fontsize=14)
    _place_labels(figure, axes, labels)
    return figure


def corner_of_two(a, b, names, path) -> None:
    """Corner plot of two chains, see `corner_of_several`."""
    corner_of_several([a, b], names, path)


@own_style
def corner_of_several(chains, names, path) -> None:
    """Corner plot of several chains, with the last one in grey below the others.

    Parameters
    ----------
    chains : sequence of lstmfit.analysis.foreign_chains.Chain
        Chains as returned by `lstmfit.analysis.several.compare_chains`.
    names : list of str
        Parameters to plot.
    path : path
        PNG file to write.

    Raises
    ------
    InputError
        There are no parameters to plot.
    """
    from anesthetic import make_2d_axes
    from matplotlib.patches import Patch

    if not names:
        raise InputError("the chains share no parameter, so there is nothing to plot; omit --plot")
    size = max(4.0, 1.45 * len(names))
    figure = new_figure(figsize=(size, size))
    labels = {name: chains[-1].samples.get_label(name) for name in names}
    _, axes = make_2d_axes(names, labels=labels, fig=figure, upper=False, ticks="outer")
    pointed, handles = [], []
    colors = [*(COLORS[i % len(COLORS)] for i in range(len(chains) - 1)), GREY]
    for chain, color in reversed(list(zip(chains, colors))):
        # Without compression: anesthetic's compression keeps the convex hull and draws from the points inside it, of
        # which there are none if one column is a function of another, so that all points lie on a curve.
        pointed += plot_2d(_fewer(chain.samples, names), axes, color, alpha=0.7, ncompress=False)
        handles.insert(0, Patch(color=color, label=one_line(chain.label, 60)))
    if pointed:
        handles.append(_points_handle("0.3"))
    figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(0.9, 0.88), frameon=False, fontsize=12)
    _place_labels(figure, axes, labels)
    save(figure, path)


def _place_labels(figure, axes, labels):
    """Set and align the axis labels, which are tilted on x, like the ticks, and level on y if one exceeds its panel.

    Labels of any length then have room, and `save` extends the picture to include them. Units go to a second line.
    """
    if not len(axes.columns):
        return
    # Drawing samples has replaced them by those of the samples.
    axes.set_labels(labels)
    first = axes.columns[0], axes.index[-1]
    below = [axes.loc[first[1], name] for name in axes.columns]
    beside = [axes.loc[name, first[0]] for name in axes.index]
    renderer = figure.canvas.get_renderer()
    lengths = [(ax.xaxis.label.get_window_extent(renderer).width, ax.bbox.width) for ax in below]
    lengths += [(ax.yaxis.label.get_window_extent(renderer).height, ax.bbox.height) for ax in beside]
    if any(length > LONGEST * panel for length, panel in lengths):
        for label in (*(ax.xaxis.label for ax in below), *(ax.yaxis.label for ax in beside)):
            label.set_text(label.get_text().replace(r"\ [", "$\n$["))
        for ax in below:
            ax.xaxis.label.set(rotation=45, rotation_mode="anchor", ha="right", va="top")
        for ax in beside:
            ax.yaxis.label.set(rotation=0, ha="right", va="center")
    figure.align_labels()


def _points_handle(color):
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, ls="", marker=".", label="points, where contours would not hold 68 and 95 %")


def _fewer(samples, names):
    """At most `N_CORNER` points of a chain that represent its posterior."""
    from anesthetic import MCMCSamples

    rows, weights = choose_points(samples.get_weights(), N_CORNER, np.random.default_rng(0))
    return MCMCSamples(data=samples[names].to_numpy()[rows], columns=names, weights=weights)


def _draw_prior(axis, distribution):
    """Draw the prior density on the scale of the posterior's curve, which anesthetic normalises to a peak of one."""
    x, y = axis.lines[-1].get_data()
    low, high = axis.get_xlim()
    grid = np.linspace(low, high, 400)
    physical = 10.0**grid if distribution.log else grid
    density = np.exp(distribution.logpdf(physical)) * (physical * np.log(10.0) if distribution.log else 1.0)
    axis.plot(grid, density * trapezoid(y, x), color=GREY, lw=1.2, zorder=0)
    axis.set_xlim(low, high)


@own_style
def signal_figure(run: Run, seed: int = 0):
    """Signal posterior: 68 and 95 % bands with the data and, for a mock, the true signal.

    Parameters
    ----------
    run : Run
        The run.
    seed : int
        Seed of the posterior draws.

    Returns
    -------
    matplotlib.figure.Figure
    """
    problem, rng = run.problem, np.random.default_rng(seed)
    draws = draw_signals(run, rng)
    nu = redshift_to_frequency(problem.signal.redshifts)
    order, spectra = np.argsort(nu), {n: likelihood.spectrum for n, likelihood in problem.spectra.items()}
    # Without spectra there is one panel with the signal alone.
    panels = spectra or {"": None}
    figure = new_figure(figsize=(8.0, 2.3 + 3.7 * len(panels) if len(panels) == 1 else 2.3 + 2.5 * len(panels)),
                        layout="constrained")  # fmt: skip
    heights = [2.4 if len(panels) == 1 else 1.4] * len(panels)
    *tops, bottom = figure.subplots(len(panels) + 1, 1, sharex=True, height_ratios=(*heights, 1.0))
    for axis, (name, spectrum) in zip(tops, panels.items()):
        if spectrum is not None:
            _draw_data(axis, run, name, draws, rng)
        for q, alpha in ((95, 0.25), (68, 0.5)):
            low, high = (edge[order] for edge in draws.band(q))
            label = f"posterior, {q} %"
            axis.fill_between(nu[order], low, high, color=BLUE, alpha=alpha, lw=0, zorder=2, label=label)
        if spectrum is not None and spectrum.truth is not None:
            sort = np.argsort(spectrum.frequency)
            axis.plot(spectrum.frequency[sort], spectrum.truth[sort], "--", color=RED, lw=1.2, zorder=3, label="truth")
        axis.set_ylabel("$T_{21}$ [mK]")
        if len(panels) > 1:
            axis.set_title(name, loc="left", fontsize="medium")
    bottom.axhline(0.0, color="0.4", lw=0.8)
    truths = [spectrum.truth for spectrum in spectra.values() if spectrum.truth is not None]
    # The truth is known at the channels only, which are the grid unless the run file cuts the band.
    on_grid = next((truth for truth in truths if len(truth) == len(nu)), None)
    reference = draws.median if on_grid is None else on_grid
    for q, alpha in ((95, 0.25), (68, 0.5)):
        low, high = (edge[order] for edge in draws.band(q, reference))
        bottom.fill_between(nu[order], low, high, color=BLUE, alpha=alpha, lw=0)
    bottom.set_ylabel("posterior $-$ truth [mK]" if on_grid is not None else "posterior $-$ median [mK]")
    shown = np.concatenate([spectrum.frequency for spectrum in spectra.values()]) if spectra else nu
    margin = 0.03 * np.ptp(shown)
    bottom.set_xlim(shown.min() - margin, shown.max() + margin)
    bottom.set_xlabel(r"frequency $\nu$ [MHz]")
    if len(panels) == 1:
        tops[0].legend(frameon=False, loc="lower right")
    else:
        figure.legend(*tops[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)
    _redshift_axis(tops[0])
    return figure


def _draw_data(axis, run, name, draws, rng):
    """Draw a spectrum minus the mean of its foregrounds."""
    cleaned, foreground = without_foreground(run, name, draws, rng)
    what = "data $-$ mean foreground" if foreground else "data"
    axis.plot(run.problem.spectra[name].spectrum.frequency, cleaned, ".", color="0.6", ms=3, zorder=1, label=what)


def _redshift_axis(axis):
    from lstmfit.constants import frequency_to_redshift

    with np.errstate(divide="ignore"):
        second = axis.secondary_xaxis(
            "top",
            functions=(
                lambda nu: frequency_to_redshift(np.maximum(nu, 1e-3)),
                lambda z: redshift_to_frequency(np.maximum(z, -0.999)),
            ),
        )
    second.set_xlabel("redshift $z$")
    low, high = (float(frequency_to_redshift(nu)) for nu in reversed(axis.get_xlim()))
    nice = np.array([5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50])
    second.set_xticks(nice[(nice >= low) & (nice <= high)])
    second.minorticks_off()
