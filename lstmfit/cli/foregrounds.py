"""The command that makes foreground modes."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lstmfit.cli.options import Json, writable_as
from lstmfit.console import print_table, say, write_json
from lstmfit.errors import InputError


def modes(
    spectra: Annotated[Path, typer.Argument(help="Training set of spectra: HDF5 or .npz.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=writable_as(".h5", ".hdf5"), help="HDF5 file to write.")
    ],
    n: Annotated[int, typer.Option("-n", help="Number of modes.")] = 12,
    noise: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="File with the noise of each channel in K, by which the channels are weighted."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json_file: Json = None,
):
    """Make a foreground basis from a training set of spectra.

    A run file uses it as foreground: {model: basis, file: OUTPUT}.
    """
    from lstmfit.datasets.modes import make_modes

    if output.exists():
        if not force:
            raise InputError(f"{output} already exists; use --force to replace it")
        if any(path is not None and path.exists() and output.samefile(path) for path in (spectra, noise)):
            raise InputError(f"{output} is an input of this command; give another file with -o")
    made = make_modes(spectra, n, noise)
    made.write(output)
    rows = [
        (i, "" if i == 0 else f"{made.variance[i - 1] ** 0.5:.4g}", f"{1e3 * rms:.4g}", f"{1e3 * largest:.4g}")
        for i, (rms, largest) in enumerate(zip(made.rms, made.largest))
    ]
    print_table(("modes", "std of coefficient", "rms left [mK]", "largest left [mK]"), rows)
    say(f"{output}: {n} modes of {made.n_spectra} spectra, {len(made.frequencies)} channels")
    content = {
        "n_spectra": made.n_spectra,
        "std": (made.variance**0.5).tolist(),
        "rms_mK": (1e3 * made.rms).tolist(),
        "max_mK": (1e3 * made.largest).tolist(),
    }
    write_json(content, json_file)
