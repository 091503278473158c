"""A finished run as an object with plots and figures, for scripts and notebooks."""

import html
from typing import TYPE_CHECKING, Any

from lstmfit.analysis import chains, plots
from lstmfit.analysis.bias import measure_bias
from lstmfit.files import AnyPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FinishedRun(chains.Run):
    """A finished run with its plots and its emulation bias, as `lstmfit.fit` and `lstmfit.read_run` return it.

    Parameters
    ----------
    folder, samples, problem
        See `lstmfit.analysis.chains.Run`: the output folder, the samples (anesthetic), and prior and likelihood.

    Examples
    --------
    >>> import lstmfit
    >>> run = lstmfit.fit("mock_25mK")           # doctest: +SKIP
    >>> run.summary["logZ"], run.corner()        # doctest: +SKIP
    """

    def _repr_html_(self) -> str:
        """Parameter table of `summary`, for notebooks."""
        cells = "".join(
            f"<tr><td>{'log10 ' * p['log10']}{name}</td><td>{p['mean']:.4g}</td><td>{p['std']:.2g}</td></tr>"
            for name, p in self.summary["parameters"].items()
        )
        head = "<tr><th>parameter</th><th>mean</th><th>std</th></tr>"
        return f"<p>{html.escape(str(self.folder))}: {self._evidence()}</p><table>{head}{cells}</table>"

    def corner(self) -> "Figure":
        """Corner plot, a `matplotlib.figure.Figure`; see `lstmfit.analysis.plots.corner_figure`."""
        return plots.corner_figure(self)

    def plot_signal(self) -> "Figure":
        """Signal posterior, a `matplotlib.figure.Figure`; see `lstmfit.analysis.plots.signal_figure`."""
        return plots.signal_figure(self)

    def bias(self, truth: str | None = None, n: int = 500, **options: Any) -> dict:
        """Emulation bias relative to the simulator; see `lstmfit.analysis.bias.measure_bias`."""
        return measure_bias(self, truth, n, **options)


def read_run(folder: AnyPath, trust: bool = False) -> FinishedRun:
    """Read a finished run from its output folder.

    Parameters
    ----------
    folder : path
        Output folder of a finished fit.
    trust : bool
        Import likelihoods and simulators given by dotted path in the run file.

    Raises
    ------
    InputError
        As `lstmfit.analysis.chains.read_run`.
    """
    run = chains.read_run(folder, trust)
    return FinishedRun(run.folder, run.samples, run.problem)
