"""A page that runs an emulator in the browser: one self-contained HTML file, which loads nothing from the network."""

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment

from lstmfit.analysis.chains import Run
from lstmfit.analysis.signal_posterior import draw_signals, without_foreground
from lstmfit.constants import redshift_to_frequency
from lstmfit.emulator.base import BaseEmulator
from lstmfit.emulator.emulator import Emulator
from lstmfit.emulator.store import compact
from lstmfit.errors import InputError, one_line
from lstmfit.files import check_writable, user_path, write_text

ENDINGS = (".html", ".htm")
"""Endings of a page."""


def write_page(path, emulator: BaseEmulator, run: Run | None = None) -> Path:
    """Write the page of an emulator.

    Parameters
    ----------
    path : path
        HTML file to write.
    emulator : Emulator
        The emulator, which must use the network of this package.
    run : Run, optional
        A finished run with this emulator, whose posterior and data the page shows.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError
        The file cannot be written or does not end in .html; the emulator is of another group; or the run does not use
        this emulator.

    Notes
    -----
    Names in an emulator file or in a run folder may come from an untrusted source. So all of them are data of the
    page's script, which adds them as text, and the content security policy allows only this script, and no network.
    """
    path = check_page(path)
    content = {"emulator": _emulator_content(emulator), "run": None}
    if run is not None:
        check_emulator_of(run, emulator)
        content["run"] = _run_content(run)
    files = resources.files("lstmfit.explorer")
    read = {name: (files / name).read_text(encoding="utf-8") for name in _FILES}
    script = read["network.js"] + read["page.js"]
    text = Environment(autoescape=True).from_string(read["page.html"]).render(
        title=content["emulator"]["name"] if run is None else content["run"]["name"],
        style=read["page.css"],
        style_hash=_hash(read["page.css"]),
        script=script,
        script_hash=_hash(script),
        content=_json(content),
    )
    write_text(path, text)
    return path


_FILES = ("page.html", "page.css", "network.js", "page.js")


def check_page(path) -> Path:
    """Check that a path can be written and ends in .html, before any work is done.

    Raises
    ------
    InputError
        It does not, or it cannot be written.
    """
    path = user_path(path, "output")
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"cannot write {path}: the page is one HTML file; give a name that ends in .html")
    check_writable(path)
    return path


def emulator_of(run: Run) -> BaseEmulator:
    """Emulator of a run.

    Raises
    ------
    InputError
        The signal of the run is not emulated.
    """
    signal = run.problem.signal
    if signal.emulator is None:
        raise InputError(
            f"{run.folder} is a fit without an emulator ({signal.name}), so its signal cannot be computed in a page; "
            "give the folder of a fit with one"
        )
    return signal.emulator


def check_emulator_of(run: Run, emulator: BaseEmulator) -> None:
    """Check that a run used an emulator, told by its checksum.

    Raises
    ------
    InputError
        It used another one, or none.
    """
    used = emulator_of(run)
    if used.checksum != emulator.checksum:
        raise InputError(
            f"{run.folder} was fitted with emulator {used.name} (checksum {used.checksum[:12]}), not with "
            f"{emulator.name} ({emulator.checksum[:12]}); leave the emulator out, and the page has that of the run"
        )


def _emulator_content(emulator) -> dict:
    if not isinstance(emulator, Emulator):
        raise InputError(
            f"{emulator.name} ({emulator.network}) is an emulator of another group, which cannot run in a page; distil "
            "it first: lstmfit simulate --simulator EMULATOR -o set.h5 -n 32768, then lstmfit train set.h5 -o mine.h5"
        )
    a, scaling = emulator.architecture, emulator.scaling
    return {
        # A file name may contain anything, such as lone surrogates.
        "name": one_line(emulator.name),
        "network": emulator.network,
        "trained_on": one_line(emulator.record.get("simulator", "")),
        "mean_percent": emulator.record.get("test", {}).get("mean_percent"),
        "parameters": [
            {key: getattr(p, key) for key in ("name", "min", "max", "log", "unit", "latex", "zero")}
            for p in emulator.parameters
        ],
        "redshifts": emulator.redshifts.tolist(),
        "frequency": redshift_to_frequency(emulator.redshifts).tolist(),
        "architecture": {
            "units": a.units, "layers": a.layers, "steps": a.steps, "patch": a.patch, "encoder": a.encoder,
            "blocks": a.blocks, "n_channels": a.n_channels, "outputs_per_step": a.outputs_per_step,
            "histories": a.histories, "scalars": a.scalars,
        },
        "scaling": {
            name: _encoded(np.asarray(getattr(scaling, name), dtype=float))
            for name in ("low", "high", "offset", "scale", "scalar_offset", "scalar_scale")
        },
        "weights": {name: _encoded(compact(array)) for name, array in emulator.used_weights.items()},
    }  # fmt: skip


def _encoded(array) -> dict:
    """An array as base64 of its little-endian bytes; weights that are halves, in half precision."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return {"type": little.dtype.str[1:], "base64": base64.b64encode(little.tobytes()).decode()}


def _run_content(run) -> dict:
    """Posterior and data of a run, as `lstmfit.analysis.plots.signal_figure` draws them."""
    problem, rng = run.problem, np.random.default_rng(0)
    draws = draw_signals(run, rng)
    theta = np.array([problem.signal_parameters(t) for t in draws.theta])
    best = run.samples.iloc[int(np.argmax(run.samples["logL"].to_numpy()))][list(problem.names)].to_numpy(dtype=float)
    spectra = []
    for name, likelihood in problem.spectra.items():
        temperature, foreground = without_foreground(run, name, draws, rng)
        truth = likelihood.spectrum.truth
        spectra.append({
            "name": name,
            "foreground": foreground,
            "frequency": likelihood.spectrum.frequency.tolist(),
            "temperature": temperature.tolist(),
            "truth": None if truth is None else truth.tolist(),
        })  # fmt: skip
    return {
        "name": one_line(run.folder.resolve().name),
        "best": problem.signal_parameters(best).tolist(),
        "intervals": np.percentile(theta, (16, 84), axis=0).T.tolist(),
        "median": draws.median.tolist(),
        "bands": [{"percent": percent, "limits": np.array(draws.band(percent)).tolist()} for percent in (95, 68)],
        "spectra": spectra,
    }


def _json(content) -> str:
    """JSON for a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
