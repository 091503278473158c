"""The command that compares posteriors."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lstmfit.cli.options import Json, writable_as
from lstmfit.console import print_table, say, with_error, write_json


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="A B [C ...]", help="Run folders, or file roots of any chains; the reference last."),
    ],
    log10: Annotated[str, typer.Option(metavar="NAME,...", help="Parameters to convert to log10.")] = "",
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--plot", callback=writable_as(".png"), help="Draw all posteriors in one corner plot (PNG)."),
    ] = None,
    burn_in: Annotated[
        float, typer.Option(metavar="FRACTION", help="Fraction of each Markov chain to discard as burn-in.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Random seed of the estimates.")] = 0,
    json_file: Json = None,
):
    """Compare two or more posteriors.

    Reads any chain that anesthetic reads; parameters are matched by name.
    """
    from lstmfit.analysis.foreign_chains import read_chain, without_burn_in
    from lstmfit.analysis.several import compare_chains

    chains = without_burn_in([read_chain(path) for path in runs], burn_in)
    compared = compare_chains(chains, [name for name in log10.split(",") if name], seed)
    if len(runs) == 2:
        _show_two(compared.result)
    else:
        _show_several(compared.result)
    write_json(compared.result, json_file)
    if plot is not None:
        from lstmfit.analysis.plots import corner_of_several

        corner_of_several(compared.chains, compared.names, plot)


def _show_two(result):
    if result["parameters"]:
        _show_parameters(result)
    for label in "ab":
        logz = with_error(result[f"logZ_{label}"], result[f"logZ_{label}_err"], 2)
        size = f"{result[f'n_{label}']:,} rows, effective sample size {result[f'ess_{label}']:,.0f}"
        say(f"{label.upper()}: logZ {logz}, {size}")
    say(f"logZ of B minus logZ of A: {with_error(result['dlogZ'], result['dlogZ_err'], 2)}")
    for line in result["notes"]:
        say(line)


def _show_parameters(result):
    rows = [
        (
            name,
            f"{p['mean_a']:.3g} ± {p['std_a']:.2g}",
            f"{p['mean_b']:.3g} ± {p['std_b']:.2g}",
            f"{p['bias']:.2f} ± {p['bias_err']:.2f}",
            f"{p['difference_sigma']:.2f}",
            f"{p['ks']:.3f}",
            f"{p['ks_p']:.2g}",
            f"{p['width_ratio']:.2f}",
        )
        for name, p in result["parameters"].items()
    ]
    print_table(("", "A", "B", "bias", "diff", "KS", "p", "width"), rows)
    worst = max(result["parameters"], key=lambda name: result["parameters"][name]["bias"])
    say(
        f"bias |mean A - mean B| / std B: {result['mean_bias']:.2f} on average, at most "
        f"{result['parameters'][worst]['bias']:.2f} ({worst})"
    )
    for ending, what in (("", "D_KL(B || A)"), ("_reverse", "D_KL(A || B)")):
        parts = [
            f"{name} {with_error(result[key + ending], result[key + ending + '_err'])}"
            for name, key in (("Gaussian", "D_KL_gaussian"), ("nearest neighbours", "D_KL"))
        ]
        say(f"{what} [nat]: {', '.join(parts)}")


def _show_several(result):
    rows = [
        (
            run["label"],
            with_error(run["logZ"], run["logZ_err"], 2),
            with_error(run["dlogZ"], run["dlogZ_err"], 2),
            "" if run["probability"] is None else f"{run['probability']:.3g}",
            f"{run['ess']:,.0f}",
        )
        for run in result["runs"]
    ]
    print_table(("", "logZ", "logZ - best", "probability", "effective size"), rows)
    if any(run["probability"] is not None for run in result["runs"]):
        say("probability: posterior model probability for equal prior odds")
    rows = []
    for pair in result["pairs"]:
        worst = max(pair["parameters"], key=lambda name, p=pair["parameters"]: p[name]["bias"], default=None)
        bias = "" if worst is None else f"{pair['parameters'][worst]['bias']:.2f} ({worst})"
        mean = "" if worst is None else f"{pair['mean_bias']:.2f}"
        rows.append((pair["a"], pair["b"], mean, bias, with_error(pair["D_KL"], pair["D_KL_err"])))
    print_table(("A", "B", "mean bias", "largest bias", "D_KL(B || A) [nat]"), rows)
    for pair in result["pairs"]:
        for line in pair["notes"]:
            say(f"{pair['a']}, {pair['b']}: {line}")
