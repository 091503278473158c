"""Terminal output of the commands: tables, results as JSON, progress of a fit."""

import json
import os

import typer

NOTEBOOK_VARIABLES = ("JPY_PARENT_PID", "JPY_SESSION_NAME")
"""Environment variables that Jupyter sets for processes started from a notebook."""

_stdout_is_for_json = False


def leave_stdout_to_json(yes: bool) -> None:
    """Print text to stderr, because stdout is used for JSON."""
    global _stdout_is_for_json
    _stdout_is_for_json = yes


def say(text) -> None:
    """Print a line of text, to stdout unless that is used for JSON."""
    typer.echo(text, err=_stdout_is_for_json)


def write_json(content: dict, target: str | None) -> None:
    """Write results as JSON to a file, or to stdout if the target is ``-``; do nothing if it is None."""
    if target is None:
        return
    text = json.dumps(content, indent=2) + "\n"
    if target == "-":
        typer.echo(text, nl=False)
    else:
        from lstmfit.files import write_text

        write_text(target, text)


LONGEST_CELL = 48
"""Longest cell in characters that is never broken; longer ones are sentences, which wrap between words."""


def print_table(columns, rows, title=None):
    """Print a table, to stdout unless that is used for JSON.

    Numbers are never broken: a table wider than the terminal is printed in blocks of columns, one below the other, and
    each block repeats the first column.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(stderr=_stdout_is_for_json)
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, (column, *(row[i] for row in rows)))) for i, column in enumerate(columns)]
    for n, block in enumerate(_blocks_of_columns(widths, console.width)):
        table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", title=None if n else title)
        for i in block:
            short = widths[i] <= LONGEST_CELL
            # Brackets would be taken for markup, as in pip install "lstmfit[nautilus]".
            table.add_column(escape(columns[i]), justify="right" if i and short else "left", no_wrap=short)
        for row in rows:
            table.add_row(*(escape(row[i]) for i in block))
        if n:
            console.print()
        console.print(table)


def _blocks_of_columns(widths, width) -> list[list[int]]:
    """Group columns into blocks that fit the terminal, each with the first column; `widths` in characters."""
    shown = [min(w, LONGEST_CELL) for w in widths]
    blocks = [[0]]
    for i in range(1, len(widths)):
        # Two spaces between columns.
        if len(blocks[-1]) > 1 and sum(shown[j] + 2 for j in (*blocks[-1], i)) - 2 > width:
            blocks.append([0])
        blocks[-1].append(i)
    return blocks


class ProgressLine:
    """Progress of a sampler: a status line in a terminal, or an occasional line in a log."""

    def __init__(self, every_s: float = 15.0):
        from rich.console import Console

        self._console = Console(stderr=True, markup=False, highlight=False)
        self._status, self._every, self._next = None, every_s, every_s
        # In a notebook, `!lstmfit fit` writes to a terminal, but every frame is kept.
        if self._console.is_terminal and not any(name in os.environ for name in NOTEBOOK_VARIABLES):
            self._status = self._console.status("starting", refresh_per_second=4)
            self._status.start()

    def __call__(self, progress):
        """Show a `lstmfit.sampling.result.Progress`."""
        text = progress_text(progress)
        if self._status is not None:
            # A line that wraps would not be overwritten; the spinner takes two columns.
            width = max(20, self._console.width - 3)
            self._status.update(text if len(text) <= width else f"{text[: width - 1]}…")
        elif progress.elapsed >= self._next:
            self._next = progress.elapsed + self._every
            self._console.print(text, soft_wrap=True)

    def close(self):
        """Remove the status line."""
        if self._status is not None:
            self._status.stop()


def progress_text(p) -> str:
    """Format a `lstmfit.sampling.result.Progress` as one line."""
    rate = p.n_like / p.elapsed if p.elapsed > 0 else 0.0
    error = f" ± {p.logZ_err:.2f}" if p.logZ_err == p.logZ_err else ""
    evidence = f"logZ {p.logZ:.2f}{error}" if p.logZ == p.logZ else "live points"
    left = "" if not p.remaining else f"   {'at least' if p.climbing else 'about'} {duration(p.remaining)} left"
    stage = p.stage or f"dead {p.n_dead:,}"
    return f"{stage}   {evidence}   calls {p.n_like:,} ({rate:,.0f}/s)   {duration(p.elapsed)}{left}"


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def with_error(value, error, digits=3) -> str:
    """Format a value with its error, if there is one."""
    if value is None:
        return "unknown"
    return f"{value:.{digits}f}" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}"
