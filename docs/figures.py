"""Figures of the documentation, from the output folders of the run files: python docs/figures.py CHAINS."""

import sys
from pathlib import Path

from PIL import Image

from lstmfit.analysis.chains import read_run

IMAGES = Path(__file__).parent / "img"
SIGNALS = ("mock_5mK", "mock_25mK", "mock_25mK_foreground", "edges2018", "edges2018_flattened_gaussian")
BLUE, ORANGE, RED = "#1f5fa8", "#e08214", "#c8321e"


def small(source: Path, target: Path, width: int = 900) -> None:
    """Copy an image with a smaller width and 128 colours."""
    image = Image.open(source).convert("RGB")
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image.quantize(128).save(target, optimize=True)


def joint(chains: Path, alone: str, together: str, target: Path) -> None:
    """Plot the posteriors of the spectrum alone and of all data in one corner plot."""
    from anesthetic import make_2d_axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs = [read_run(chains / name) for name in (alone, together)]
    names = ["fX", "fLy", "fesc", "Tmin_vir", "tstar"]
    figure = Figure(figsize=(8.0, 8.0))
    FigureCanvasAgg(figure)
    samples = [run.natural() for run in runs]
    labels = {name: samples[0].get_label(name) for name in names}
    _, axes = make_2d_axes(names, labels=labels, fig=figure, upper=False, ticks="outer")
    for sample, colour, label in zip(samples, (ORANGE, BLUE), ("spectrum", r"spectrum, UVLF, $\tau$, $x_\mathrm{HI}$")):
        sample.plot_2d(axes, kinds={"lower": "kde_2d", "diagonal": "kde_1d"}, color=colour, label=label, alpha=0.7)
    truth = {name: value for name, value in runs[0].truth().items() if name in names}
    axes.axlines(truth, color=RED, lw=1.0, ls="--")
    handles, texts = axes.iloc[-1, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="upper right", bbox_to_anchor=(0.9, 0.88), frameon=False, fontsize=13)
    figure.savefig(target, dpi=130, bbox_inches="tight")
    small(target, target)


def narrowing(chains: Path, alone: str, together: str) -> dict[str, float]:
    """Ratio of the standard deviations of each parameter with all data and with the spectrum alone."""
    runs = [read_run(chains / name) for name in (alone, together)]
    before, after = ({n: run.natural()[n].std() for n in run.problem.names} for run in runs)
    return {name: float(after[name] / before[name]) for name in before if name in after}


def main(chains: Path) -> None:
    """Create all figures whose runs exist."""
    IMAGES.mkdir(exist_ok=True)
    for name in SIGNALS:
        if (chains / name / "signal.png").is_file():
            small(chains / name / "signal.png", IMAGES / f"{name}_signal.png", 700)
    if (chains / "joint_mock" / "summary.json").is_file():
        joint(chains, "mock_25mK", "joint_mock", IMAGES / "joint_mock_corner.png")
    if (chains / "joint_21cmfast" / "corner.png").is_file():
        small(chains / "joint_21cmfast" / "corner.png", IMAGES / "joint_21cmfast_corner.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
