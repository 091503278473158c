"""Corner plots whose contours are checked against the weight that they contain.

anesthetic's kernel has the covariance of the whole sample, so a posterior along a narrow curve is smeared out: the 68 %
region is then almost empty, and the 95 % region misses a fifth of the weight. In such a panel points are drawn instead.
"""

import numpy as np
from scipy.spatial import QhullError, cKDTree

from lstmfit.analysis.reweight import choose_points

N_POINTS = 2000
"""Number of points in a panel without contours."""
TOLERANCE = {0.68: 0.1, 0.95: 0.04}
"""Allowed difference between the weight inside a contour and its nominal value; sampling noise is a tenth of that."""
NEIGHBOUR = 20
"""The density at a point is estimated from the distance to its 20th neighbour."""


def plot_2d(samples, axes, color: str, **options) -> list[tuple[str, str]]:
    """Draw anesthetic's corner plot, with points in panels where contours would not contain 68 and 95 %.

    Parameters
    ----------
    samples : anesthetic.Samples
        Weighted samples.
    axes : anesthetic.plot.AxesDataFrame
        Axes from `anesthetic.make_2d_axes`; panels below the diagonal are drawn.
    color : str
        Colour.
    **options
        Options of anesthetic's plots.

    Returns
    -------
    list of (str, str)
        Parameters on the x and y axes of the panels with points.
    """
    samples.plot_2d(axes, kinds={"diagonal": "kde_1d"}, color=color, **options)
    weights, pointed = samples.get_weights(), []
    for (x, y), ax in _lower(axes).items():
        points, before = samples[[x, y]].to_numpy(), list(ax.collections)
        try:
            samples.plot_2d(axes.loc[[y], [x]], kinds={"lower": "kde_2d"}, color=color, **options)
        except (QhullError, np.linalg.LinAlgError, ValueError):
            # The points are too close to a line for a triangulation.
            drawn, good = [a for a in ax.collections if a not in before], False
        else:
            drawn = [a for a in ax.collections if a not in before]
            good = holds(weights_inside(drawn, points, weights))
        if good:
            continue
        for artist in drawn:
            artist.remove()
        _scatter(ax, points, weights, color, options.get("alpha", 1.0))
        pointed.append((x, y))
    return pointed


def _lower(axes):
    """Panels below the diagonal by (x, y)."""
    names = list(axes.columns)
    return {(x, y): axes.loc[y, x] for i, y in enumerate(names) for x in names[:i] if axes.loc[y, x] is not None}


def weights_inside(artists, points: np.ndarray, weights: np.ndarray) -> dict[float, float]:
    """Fraction of the posterior's weight inside the drawn 68 and 95 % regions.

    Parameters
    ----------
    artists : list of matplotlib.artist.Artist
        Artists of a panel, which may include filled contours.
    points : numpy.ndarray
        (n, 2) samples.
    weights : numpy.ndarray
        (n,) weights of the samples.

    Returns
    -------
    dict of float to float
        Fractions for the levels 0.68 and 0.95; empty without filled contours.
    """
    filled = next((a for a in artists if getattr(a, "filled", False)), None)
    if filled is None:
        return {}
    inside, out = np.zeros(len(points), dtype=bool), {}
    # From the innermost region outwards: the outer one is a ring around the inner.
    for level, path in zip((0.68, 0.95), reversed(filled.get_paths())):
        if len(path.vertices):
            inside |= path.contains_points(points)
        out[level] = float(weights[inside].sum() / weights.sum())
    return out


def holds(fractions: dict[float, float]) -> bool:
    """Whether contours contain their nominal weights, within `TOLERANCE`."""
    return bool(fractions) and all(abs(fractions[level] - level) <= most for level, most in TOLERANCE.items())


def regions(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Smallest credible region that contains each of some weighted points.

    Parameters
    ----------
    points : numpy.ndarray
        (n, 2) samples.
    weights : numpy.ndarray
        (n,) weights of the samples.

    Returns
    -------
    numpy.ndarray
        (n,) 0.68 for the densest points that together have this weight, 0.95 for the next, 1 for the rest. The density
        is estimated from the distance to the 20th neighbour, in units of the two standard deviations.
    """
    width = points.std(axis=0)
    scaled = points / np.where(width > 0, width, 1.0)
    k = min(NEIGHBOUR + 1, len(points))
    distance = cKDTree(scaled).query(scaled, k)[0].reshape(len(points), -1)[:, -1]
    order = np.argsort(distance, kind="stable")
    inside = np.cumsum(weights[order]) / weights.sum()
    out = np.ones(len(points))
    out[order] = np.select([inside <= 0.68, inside <= 0.95], [0.68, 0.95], 1.0)
    return out


def _scatter(ax, points, weights, color, alpha):
    rows, weights = choose_points(weights, N_POINTS, np.random.default_rng(0))
    points = points[rows]
    region = regions(points, weights)
    for level, faint in ((1.0, 0.12), (0.95, 0.35), (0.68, 1.0)):
        ax.scatter(*points[region == level].T, s=3.0, color=color, alpha=alpha * faint, lw=0, zorder=1)
