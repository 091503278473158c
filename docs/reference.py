"""Write docs/run_file.md and docs/commands.md from the classes of the run file and from the commands.

Usage: ``python docs/reference.py``. A test checks that the pages are those that it writes.
"""

import dataclasses
import re
from pathlib import Path
from typing import Literal, get_origin

import typer.main

from lstmfit import config
from lstmfit.cli import app
from lstmfit.emulator_source import EmulatorSource
from lstmfit.files import write_text
from lstmfit.likelihoods import planck_tau, uvlf, x_HI
from lstmfit.likelihoods.base import read_defaults
from lstmfit.likelihoods.foregrounds import FOREGROUNDS, SYSTEMATICS, MockForeground
from lstmfit.likelihoods.global_signal_options import GlobalSignalOptions, RelativeError
from lstmfit.likelihoods.noise import NOISE, Sky
from lstmfit.mistakes import known_keys
from lstmfit.priors.distributions import DISTRIBUTIONS
from lstmfit.sampling.samplers import SAMPLERS, sampler_class
from lstmfit.schema import Block, meanings

DOCS = Path(__file__).parent

RUN_FILE = """# Run-file reference

<!-- Written by docs/reference.py from the docstrings of the classes. -->

Every key of a run file. The guides say what the blocks are for: [running a fit](fit.md), [data files](data.md),
[likelihoods](likelihoods.md), [samplers](sampling.md). Keys without a default are optional. Unknown keys are errors.
"""

COMMANDS = """# Command reference

<!-- Written by docs/reference.py from the commands. -->

The same text is printed by `lstmfit COMMAND --help`. What the exit status means: [running a fit](fit.md#exit-status).
"""

VALUES = {
    "EmulatorSource": "[emulator](#emulator)",
    "MockForeground": "[mapping](#datamockforeground)",
    "PointBlock": "[point](#points-of-x_hi)",
    "NoiseBlock": "[noise](#noise)",
    "ComponentBlock": "[model](#foreground-and-systematics)",
    "RelativeError": "[fraction](#fraction-of-the-signal)",
    "Measurement": "[measurement](#measurements-of-planck_tau)",
    "ParamBlock": "[parameter](#params)",
    "Sampler": "[sampler](#samplers)",
    "Table": "[table](#table-of-luminosity-functions)",
    "Mock": "[mapping](#datamock)",
    "Data": "[data](#data)",
    "Sky": "[sky](#sky-of-radiometer)",
    "Block": "[mapping](#likelihoodglobal_signal)",
    "dict of str to Data": "[data](#data), or a mapping of names to it",
    "(Block or dict)": "[likelihood](#likelihoodglobal_signal)",
    "dict of str to": "mapping of name to",
    "dict of float to": "mapping of redshift to",
    "dict": "mapping",
    "bool": "true or false",
    "float": "number",
    "int": "integer",
    "str": "text",
    "tuple": "list",
}
"""Words for the types of docstrings."""


def sections():
    """Level, heading, class or text, and defaults of each block, in order."""
    yield 2, "The whole file", config.RunConfig, {}
    yield 2, "`emulator`", EmulatorSource, {}
    yield 2, "`data`", config.Data, {}
    yield 3, "`data.mock`", config.Mock, {}
    yield 3, "`data.mock.foreground`", MockForeground, {}
    yield 2, "`likelihood.global_signal`", GlobalSignalOptions, {}
    yield 3, "Fraction of the signal", RelativeError, {}
    yield 2, "Noise", "How each model enters the likelihood: [noise](likelihoods.md#noise).", {}
    for name, block in NOISE.items():
        yield 3, f"`model: {name}`", block, {}
    yield 3, "`sky` of `radiometer`", Sky, {}
    formulae = "[foreground and systematics](likelihoods.md#foreground-and-systematics)"
    yield 2, "Foreground and systematics", f"Formulae, parameters and default priors: {formulae}.", {}
    for name, block in FOREGROUNDS.items():
        yield 3, f"`foreground: {{model: {name}}}`", block, {}
    for name, block in SYSTEMATICS.items():
        yield 3, f"`systematics: {{model: {name}}}`", block, {}
    also = "`class`, and `mock: true` or `mock: {seed: N}`, see [other data](likelihoods.md#other-data)"
    yield 2, "Other likelihoods", f"Each also takes {also}.", {}
    yield 3, "`likelihood.planck_tau`", planck_tau.Options, read_defaults("planck_tau")
    yield 4, "`measurements` of `planck_tau`", planck_tau.Measurement, {}
    yield 3, "`likelihood.x_HI`", x_HI.Options, read_defaults("x_HI")
    yield 4, "`points` of `x_HI`", x_HI.PointBlock, {}
    yield 3, "`likelihood.uvlf_bouwens2015` and `uvlf_bouwens2021`", uvlf.Options, read_defaults("uvlf_bouwens2021")
    yield 4, "`table` of luminosity functions", uvlf.Table, {}
    yield 2, "`params`", config.ParamBlock, {}
    yield 2, "Samplers", "Which one to use: [samplers](sampling.md).", {}
    for name in SAMPLERS:
        yield 3, f"`sampler: {{{name}: {{...}}}}`", sampler_class(name).Settings, {}


def markdown(text: str) -> str:
    """Text of a docstring as Markdown in the cell of a table; references to Python are left out."""
    text = re.sub(r"(,|;|\.)? [Ss]ee `+[\w.]+`+|, `lstmfit[\w.]*`", "", text)
    text = re.sub(r",? one of `[\w.]*(NOISE|FOREGROUNDS|SYSTEMATICS)`", " (see below)", text)
    return text.replace("``", "`").replace("|", "\\|")


def value(kind: str) -> str:
    """Type of a docstring in words, with links to blocks."""
    longest_first = sorted(VALUES, key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest_first)
    words = re.sub(pattern, lambda found: VALUES[found[0]], kind)
    if words.startswith("{"):
        words = " or ".join(f"`{word}`" for word in re.findall(r'"(.*?)"', words))
    return re.sub(r'"(\w+)"', r"`\1`", words).replace("|", "\\|")


def shown(default) -> str:
    """A default value as in a run file; nothing for a null, an empty text or an empty mapping."""
    if default is None or default in ("", {}):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, dict):
        return f"`{{{', '.join(f'{key}: {value}' for key, value in default.items())}}}`"
    if isinstance(default, list):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def table(block: type[Block], defaults: dict) -> list[str]:
    """Lines of the table of a block.

    Raises
    ------
    ValueError
        The docstring of the class does not describe a key.
    """
    known, keys = meanings(block), known_keys(block)
    lines, names = ["| key | value | unit | default | meaning |", "|---|---|---|---|---|"], []
    for name, field in block.model_fields.items():
        key = field.alias or name
        if key not in keys or (get_origin(field.annotation) is Literal and name == "model"):
            continue
        if name not in known:
            raise ValueError(f"the docstring of {block.__module__}.{block.__qualname__} does not describe {name}")
        default = defaults.get(name, None if field.is_required() or field.default_factory else field.default)
        if isinstance(default, dict) and name in ("known", "measurements", "table"):
            names = [f"`{n}`" for n in default]
            shown_default = "below"
        else:
            shown_default = shown(default) or ("required" if field.is_required() and not defaults else "")
        meaning = known[name]
        cells = f"`{key}`", value(meaning.type), meaning.unit, shown_default, markdown(meaning.text)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, *([f"\nShipped: {', '.join(names)}."] if names else [])]


def priors() -> list[str]:
    """Lines about the distributions of ``prior:``."""
    lines = ["\n### `prior`\n", "| `dist` | meaning | keys (defaults) |", "|---|---|---|"]
    for name, kind in DISTRIBUTIONS.items():
        keys = []
        for field in dataclasses.fields(kind):
            default = "" if field.default is dataclasses.MISSING else f" ({field.default:g})"
            keys.append(f"`{field.name}`{default}")
        lines.append(f"| `{name}` | {markdown(kind.__doc__.splitlines()[0])} | {', '.join(keys)} |")
    return [
        *lines,
        "",
        "Any other continuous distribution of `scipy.stats` takes its shape parameters, and `loc` and `scale` or `min`",
        "and `max`. `dist` is `uniform` by default. `sorted: LABEL` is described in",
        "[parameters and priors](likelihoods.md#parameters-and-priors).",
    ]


def run_file() -> str:
    """Content of docs/run_file.md."""
    lines = [RUN_FILE.rstrip()]
    for level, heading, block, defaults in sections():
        lines.append(f"\n{'#' * level} {heading}\n")
        if isinstance(block, str):
            lines.append(block)
        else:
            lines += [f"{markdown((block.__doc__ or '').splitlines()[0])}\n", *table(block, defaults)]
        if block is config.ParamBlock:
            lines += priors()
    return "\n".join(lines) + "\n"


def options(command) -> list[str]:
    """Lines of the table of the arguments and options of a command."""
    rows = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = f"`{parameter.metavar or parameter.name}`"
        else:
            metavar = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
            name = f"`{', '.join(parameter.opts)}{metavar}`".replace("|", "\\|")
        default = "required" if parameter.required else ""
        if not parameter.required and not getattr(parameter, "is_flag", False):
            default = shown(parameter.default)
            if isinstance(parameter.show_default, str):
                default = parameter.show_default
        rows.append(f"| {name} | {default} | {markdown(parameter.help or '')} |")
    return ["| argument | default | meaning |", "|---|---|---|", *rows] if rows else []


def commands() -> str:
    """Content of docs/commands.md."""
    lines = [COMMANDS.rstrip()]

    def describe(command, name):
        lines.extend(["", f"## `{name}`", "", command.help or "", "", *options(command)])
        for inner, other in getattr(command, "commands", {}).items():
            describe(other, f"{name} {inner}")

    describe(typer.main.get_command(app), "lstmfit")
    return "\n".join(lines) + "\n"


PAGES = {"run_file.md": run_file, "commands.md": commands}

if __name__ == "__main__":
    for name, content in PAGES.items():
        write_text(DOCS / name, content())
