"""Options that several commands have."""

from typing import Annotated, Optional

import typer

Json = Annotated[Optional[str], typer.Option("--json", metavar="FILE|-", help="Write the figures as JSON.")]  # noqa: UP045
Jobs = Annotated[Optional[int], typer.Option("--jobs", help="Processes; all cores by default.")]  # noqa: UP045
