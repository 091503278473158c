"""Corner plots: the drawn 68 and 95 % regions hold 68 and 95 % of the weight, or there are points."""

import numpy as np
import pytest
from anesthetic import MCMCSamples, make_2d_axes

from lstmfit.analysis.contours import holds, plot_2d, regions, weights_inside
from lstmfit.analysis.plots import _place_labels, corner_of_two, new_figure

N = 4000


def shapes(rng):
    z = rng.standard_normal((N, 2))
    u = rng.uniform(size=(N, 2))
    yield "round", z
    for rho in (0.9, 0.99, 0.995, 0.999, 0.99999):
        yield f"line {rho}", rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], N)
    for width in (0.1, 0.03, 0.01, 0.001):
        yield f"sine {width}", np.c_[z[:, 0], np.sin(z[:, 0]) + width * z[:, 1]]
        yield f"parabola {width}", np.c_[z[:, 0], z[:, 0] ** 2 + width * z[:, 1]]
        yield f"line with ends {width}", np.c_[u[:, 0], u[:, 0] + width * u[:, 1]]
    yield "square", u
    yield "corner", rng.exponential(size=(N, 2))
    yield "two far apart", np.r_[z[: N // 2] * 0.01, z[N // 2 :] * 0.01 + 3]
    yield "scales", z * [1e-6, 1e9]


NAMES = [name for name, _ in shapes(np.random.default_rng(0))]


def drawn(samples, **options):
    figure = new_figure(figsize=(4, 4))
    _, axes = make_2d_axes(list(samples.columns.get_level_values(0)), fig=figure, upper=False)
    return axes, plot_2d(samples, axes, "#1f5fa8", **options)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_drawn_holds_its_weight(name, weighted):
    rng = np.random.default_rng(1)
    x = dict(shapes(rng))[name]
    weights = rng.exponential(size=N) if weighted else np.ones(N)
    axes, pointed = drawn(MCMCSamples(data=x, columns=["a", "b"], weights=weights))
    panel = axes.loc["b", "a"]
    if pointed:
        assert pointed == [("a", "b")]
        sizes = [len(c.get_offsets()) for c in panel.collections]
        np.testing.assert_allclose(np.cumsum(sizes[::-1])[:2] / sum(sizes), [0.68, 0.95], atol=0.02)
        (low, high), (bottom, top) = panel.get_xlim(), panel.get_ylim()
        inside = (x[:, 0] > low) & (x[:, 0] < high) & (x[:, 1] > bottom) & (x[:, 1] < top)
        assert weights[inside].sum() > 0.97 * weights.sum()
        return
    inside = weights_inside(panel.collections, x, weights)
    assert inside[0.68] == pytest.approx(0.68, abs=0.1)
    assert inside[0.95] == pytest.approx(0.95, abs=0.04)


@pytest.mark.parametrize("name", ["round", "line 0.9", "square"])
def test_wide_posteriors_keep_their_contours(name):
    x = dict(shapes(np.random.default_rng(1)))[name]
    assert not drawn(MCMCSamples(data=x, columns=["a", "b"]))[1]


def test_a_narrow_curve_gets_points():
    """The reported case: no 68 % region."""
    x = dict(shapes(np.random.default_rng(1)))["sine 0.001"]
    assert drawn(MCMCSamples(data=x, columns=["a", "b"]))[1] == [("a", "b")]
    assert not holds({})
    assert not holds({0.68: 0.18, 0.95: 0.84})


def test_regions_hold_their_weight(rng):
    x, weights = rng.standard_normal((5000, 2)), rng.exponential(size=5000)
    region = regions(x, weights)
    for level in (0.68, 0.95):
        assert weights[region <= level].sum() / weights.sum() == pytest.approx(level, abs=0.01)
    # Of a Gaussian the densest 68 % lie within r^2 = -2 ln 0.32.
    r2 = np.sum(x**2, axis=1)
    assert r2[region == 0.68].mean() < r2[region == 0.95].mean() < r2[region == 1.0].mean()


def test_two_chains_over_each_other(tmp_path, rng):
    from lstmfit.analysis.foreign_chains import Chain

    x = dict(shapes(rng))["sine 0.01"]
    chains = [Chain(f"chain {i}", MCMCSamples(data=x + 0.1 * i, columns=["a", "b"])) for i in (0, 1)]
    corner_of_two(*chains, ["a", "b"], tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    labelled = [Chain(c.label, MCMCSamples(data=x, columns=["a", "b"], labels=["$A$", "$B$"])) for c in chains]
    unlabelled = [Chain(c.label, MCMCSamples(data=x, columns=["a", "b"])) for c in chains]
    for name, pair in (("labelled", labelled), ("unlabelled", unlabelled)):
        corner_of_two(*pair, ["a", "b"], tmp_path / name)
    assert (tmp_path / "labelled").read_bytes() != (tmp_path / "unlabelled").read_bytes()


LONG = r"$\log_{10} L_{\mathrm{X}<2\,\mathrm{keV}}^\mathrm{mini}/\mathrm{SFR}\ [\mathrm{log10(erg/s/(Msun/yr))}]$"


def labelled_axes(n, labels):
    """Axis labels of x and y in a corner plot of n parameters, and the size of a panel in pixels."""
    names = [f"p{i}" for i in range(n)]
    figure = new_figure(figsize=(max(4.0, 1.45 * n),) * 2)
    _, axes = make_2d_axes(names, fig=figure, upper=False, ticks="outer")
    _place_labels(figure, axes, dict(zip(names, labels)))
    figure.canvas.draw()
    below, beside = axes.iloc[-1], axes.iloc[:, 0]
    return [ax.xaxis.label for ax in below], [ax.yaxis.label for ax in beside], below.iloc[0].bbox.width


@pytest.mark.parametrize("n", [2, 7, 11, 18])
@pytest.mark.parametrize("label", [r"$f_\mathrm{X}$", r"$\log_{10}\,T_\mathrm{vir}^\mathrm{min}\ [\mathrm{K}]$", LONG])
def test_axis_labels_do_not_overlap(n, label):
    x, y, panel = labelled_axes(n, ["$a$", *[label] * (n - 1)])
    boxes = [text.get_window_extent() for text in y]
    assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:]))
    if label != LONG:
        assert {text.get_rotation() for text in x} == {0.0}
        assert {text.get_rotation() for text in y} == {90.0}
        boxes = [text.get_window_extent() for text in x]
        assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:]))
        return
    # Tilted lines are as far apart as panels, perpendicularly to themselves.
    assert {text.get_rotation() for text in x} == {45.0}
    for text in x:
        text.set_rotation(0.0)
        assert text.get_window_extent().height < panel * np.sqrt(0.5)
