"""Progress bars and figures in Jupyter notebooks."""

import contextlib
import html
import importlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

EVERY_S = 0.5
"""Shortest time between two updates of a bar in seconds."""
_CELLS = 20


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook. Does not import IPython."""
    return getattr(_shell(), "kernel", None) is not None


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def let_notebook_show(figure_type: type) -> None:
    """Let a notebook show figures as PNG, unless it already shows them: matplotlib tells it how when pyplot is used."""
    if not in_notebook():
        return
    formatters = _shell().display_formatter.formatters
    if not any(figure_type in each for kind, each in formatters.items() if kind.startswith("image/")):
        importlib.import_module("IPython.core.pylabtools").select_figure_formats(_shell(), {"png"})


class NotebookBar:
    """A progress bar below the cell. It is a single output that is updated in place, and needs no widgets."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._next, self._fraction, self._text = -math.inf, 0.0, ""

    def show(self, fraction: float | None, text: str) -> None:
        """Show the finished fraction (0 to 1, None if unknown) and a line of text."""
        self._fraction = 0.0 if fraction is None else min(max(fraction, 0.0), 1.0)
        self._text = text
        if time.monotonic() >= self._next:
            self._display()

    def finish(self) -> None:
        """Fill the bar, if it has been shown."""
        if self._handle is not None:
            self._fraction = 1.0
            self._display()

    def _display(self) -> None:
        percent = f"{100.0 * self._fraction:3.0f} %"
        cells = "█" * round(_CELLS * self._fraction)
        text = f"{percent} {html.escape(self._text)}".replace("  ", "&ensp;")
        content = {
            "text/plain": f"{cells:<{_CELLS}} {percent} {self._text}",
            "text/html": f'<progress value="{self._fraction:.3f}" max="1"></progress> <code>{text}</code>',
        }
        self._next = time.monotonic() + EVERY_S
        if self._handle is None:
            # Imported like this because IPython is not a requirement; whoever runs a notebook has it.
            display = importlib.import_module("IPython.display").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


@contextlib.contextmanager
def default_progress(given: Callable | None, describe: Callable[..., tuple[float | None, str]]) -> Iterator[Any]:
    """Show a bar in a notebook, unless the caller has asked for something else.

    Parameters
    ----------
    given : callable or None
        What the caller gave for the progress.
    describe : callable
        Called with the arguments of the progress; returns the arguments of `NotebookBar.show`.

    Yields
    ------
    callable or None
        `given` if it is not None; in a notebook a function that updates a bar; elsewhere None.
    """
    if given is not None or not in_notebook():
        yield given
        return
    bar = NotebookBar()
    yield lambda *arguments: bar.show(*describe(*arguments))
    bar.finish()


def counted(unit: str) -> Callable[[int, int], tuple[float, str]]:
    """Description of `default_progress` for tasks that are counted, as (finished, all of them)."""
    return lambda done, total: (done / total, f"{done:,} of {total:,} {unit}")


def fit_progress(progress: Any) -> tuple[float | None, str]:
    """Description of `default_progress` for a `lstmfit.sampling.result.Progress`; the fraction is that of the time."""
    from lstmfit.console import progress_text

    left = progress.remaining
    known = left is not None and progress.elapsed + left > 0
    return progress.elapsed / (progress.elapsed + left) if known else None, progress_text(progress)
