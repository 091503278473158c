"""The command that compares the evidences of variants of a run file."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lstmfit.cli.fits import bar, ending_well, seconds_of
from lstmfit.cli.options import Jobs, Json, writable_folder
from lstmfit.console import print_table, say, with_error, write_json
from lstmfit.errors import InputError


def evidence(
    run: Annotated[str, typer.Argument(help="Run file, or the name of a shipped one.")],
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="KEY.PATH=V1,V2", help="Key of the run file and its values. Combined."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--output", callback=writable_folder, help="Output folder of all fits."),
    ] = None,
    jobs: Jobs = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the fits in the folder (also the default).")] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove the fits in the folder and start over.")] = False,
    time_limit: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Stop after e.g. 90s, 30m or 12h with exit status 75; resume later. SIGUSR1 does the same."),
    ] = None,
    json_file: Json = None,
):
    """Fit variants of a run file and compare their evidences.

    One fit for each combination of the settings. The value as-is keeps what the run file says; --set signal=none is a
    fit without a signal. Repeat the command to resume after an interruption.
    """
    from lstmfit.evidence import evidence as fit_variants

    if resume and force:
        raise InputError("--resume and --force are mutually exclusive; give one of them")
    seconds = seconds_of(time_limit)
    output = Path("chains") / f"evidence_{Path(run).stem}" if output is None else output

    def how():
        begun = (output / "plan.json").is_file()
        return f"to resume, repeat the command (folder {output})" if begun else "nothing was written"

    with ending_well(seconds, how), bar("fit") as progress:
        result = fit_variants(run, settings or [], output, jobs=jobs, force=force, progress=progress)
    if result is None:
        return
    rows = [
        (
            row["folder"],
            with_error(row["logZ"], row["logZ_err"], 2),
            f"{row['delta_logZ']:.2f}",
            f"{row['posterior_probability']:.3g}",
            f"{row['D_KL']:.1f}",
            f"{row['d_G']:.1f}",
            "–" if row["chi2"] is None else f"{row['chi2']:.1f}",
            "–" if row["dof"] is None else f"{row['dof']:.1f}",
            "–" if row["p_value"] is None else f"{row['p_value']:.2g}",
            {True: "yes", False: "no", None: "–"}[row["fits"]],
        )
        for row in result["variants"]
    ]
    columns = ("variant", "logZ", "logZ - best", "probability", "D_KL", "d_G", "chi2", "dof", "p", "fits")
    print_table(columns, rows)
    say(f"probability: posterior probability for a prior that is {result['prior']}")
    for line in result["warnings"]:
        say(f"warning: {line}")
    say(f"{output / 'evidence.json'}, evidence.png")
    write_json(result, json_file)
