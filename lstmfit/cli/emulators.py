"""Commands for emulators: training sets, training, errors and speed."""

import contextlib
from pathlib import Path
from typing import Annotated, Optional

import typer

from lstmfit.cli.options import Jobs, Json, writable_as
from lstmfit.console import print_table, write_json
from lstmfit.errors import LONGEST, InputError, one_line
from lstmfit.schema import shown

Spec = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--spec",
        metavar="SPEC",
        help="Names of the parameters and arrays of a set: 21cmgem, ares or a YAML file.",
        show_default="from the file",
    ),
]

data = typer.Typer(no_args_is_help=True, help="List and fetch public data sets.")


def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file to write.")],
    n: Annotated[int, typer.Option("-n", help="Number of training signals.")],
    design: Annotated[str, typer.Option(help="Sampling of the parameter space: sobol or uniform.")] = "sobol",
    seed: Annotated[int, typer.Option(help="Random seed of all splits.")] = 0,
    simulator: Annotated[
        str, typer.Option(help="Name of a simulator, or package.module:attribute for your own.")
    ] = "echo21",
    n_val: Annotated[
        int | None, typer.Option(help="Number of validation signals.", show_default="n / 8, 16 to 2048")
    ] = None,
    n_test: Annotated[
        int | None, typer.Option(help="Number of test signals.", show_default="n / 8, 16 to 2048")
    ] = None,
    jobs: Jobs = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
):
    """Simulate training, validation and test signals.

    Repeat the command to continue after an interruption.
    """
    from lstmfit.simulators.campaign import simulate_set
    from lstmfit.simulators.protocol import SimulationError

    sizes = {"n_val": n_val, "n_test": n_test, "jobs": jobs}
    try:
        done = simulate_set(output, n, simulator=simulator, design=design, seed=seed, force=force, **sizes)
    except SimulationError as error:
        # An expected failure, not a bug: every simulation failed, or a worker was killed.
        typer.echo(f"lstmfit: {one_line(error, LONGEST)}", err=True)
        raise typer.Exit(1) from None
    if done is not None:
        failed = f"; {done.n_failed} failed (group 'failed')" if done.n_failed else ""
        typer.echo(f"{done.path}: {done.n_train} training, {done.n_val} validation, {done.n_test} test signals{failed}")


def train(
    signals: Annotated[Path, typer.Argument(help="Signal set: HDF5, .npz, or a folder of text tables.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Emulator file to write.")],
    spec: Spec = None,
    updates: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Gradient steps; with --from, 10000 by default.", show_default="100000"),
    ] = None,
    batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Signals per gradient step.", show_default="128; gated: 512"),
    ] = None,
    learning_rate: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Peak learning rate; with --from, 0.004 by default.", show_default="0.0125; gated: 0.01"),
    ] = None,
    units: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="LSTM units per layer; gated: width of a block.", show_default="128; gated: 160; published: 451"
        ),
    ] = None,
    blocks: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Number of residual blocks (gated only).", show_default="8"),
    ] = None,
    steps: Annotated[Optional[int], typer.Option(help="Number of LSTM time steps.", show_default="11")] = None,  # noqa: UP045
    encoder: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Widths of the encoder's hidden layers, separated by commas.", show_default="256"),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store matrices in half precision, in half the space.", show_default="off")
    ] = False,
    start: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--from",
            metavar="EMULATOR",
            help="Start from this emulator of the same parameters.",
            show_default="random weights",
        ),
    ] = None,
    architecture: Annotated[
        str,
        typer.Option(help="patched (an LSTM), gated (faster, no recurrence) or published (the 21cmLSTM of 2024)."),
    ] = "patched",
    epochs: Annotated[float, typer.Option(help="Fraction of the original 175 epochs (published only).")] = 1.0,
    seed: Annotated[int, typer.Option(help="Random seed of the initial weights and the batches.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint.", show_default="off")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.", show_default="off")] = False,
):
    """Train an emulator on a signal set.

    The checkpoint is OUTPUT.checkpoint.
    """
    from lstmfit.datasets.signal_sets import load_signals
    from lstmfit.emulator.train_emulator import check_output, save_with_test_set
    from lstmfit.emulator.train_emulator import train as train_on
    from lstmfit.emulator.training import Recipe, default_settings

    output, checkpoint = check_output(output, resume=resume, force=force)
    if architecture not in _SIZES:
        raise InputError(f"architecture is {shown(architecture)}; expected patched, gated or published")
    if not 0 < epochs <= 1000:
        raise InputError(f"epochs is {epochs:g}; give a multiple of the published 175 epochs, above 0 and at most 1000")
    if architecture == "published" and start is not None:
        raise InputError(
            f"--from {start} with --architecture published, whose training always starts from random weights; remove "
            "one of the two"
        )
    if architecture == "gated" and start is not None:
        raise InputError(f"--from {start} with --architecture gated, but the network is that of {start}; remove one")
    given = {"units": units, "blocks": blocks, "steps": steps, "encoder": encoder}
    sizes = _sizes(architecture, {key: value for key, value in given.items() if value is not None})
    given = {"updates": updates, "batch": batch, "learning_rate": learning_rate, "seed": seed}
    given = {key: value for key, value in given.items() if value is not None}
    recipe = Recipe(**default_settings(warm=start is not None, sizes=sizes) | given)
    if architecture == "published":
        data = load_signals(signals, spec=spec)
        emulator = _train_published(data, epochs, units, seed)
        save_with_test_set(emulator, data, output)
        checkpoint.unlink(missing_ok=True)
    else:
        options = {"start": start, "spec": spec, "half": half, "resume": resume, "force": force}
        with _training_bar(recipe.updates) as progress:
            emulator = train_on(signals, output, recipe=recipe, sizes=sizes, progress=progress, **options)
    typer.echo(f"{output}: {emulator!r}")
    if "test" in emulator.record:
        _show_errors(emulator.record["test"])


_SIZES = {"patched": ("units", "steps", "encoder"), "gated": ("units", "blocks"), "published": ("units",)}
"""Options of each architecture."""


def _sizes(architecture, given):
    """Arguments of `Architecture` that differ from its defaults, from the options that were given."""
    from lstmfit.emulator.architecture import gated_sizes

    for option in given:
        if option not in _SIZES[architecture]:
            others = " or ".join(name for name, options in _SIZES.items() if option in options)
            raise InputError(
                f"--{option} does not apply to a {architecture} network; remove it, or add --architecture {others}"
            )
    if architecture == "gated":
        return gated_sizes(**given)
    return given | ({"encoder": _widths(given["encoder"])} if "encoder" in given else {})


def _widths(text) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(",") if width.strip())
    except ValueError:
        raise InputError(f"encoder is {shown(text)}; give widths separated by commas, such as 256 or 128,128") from None


def _train_published(data, epochs, units, seed):
    from tqdm import tqdm

    from lstmfit.emulator.published import train_published
    from lstmfit.emulator.train_emulator import add_test_errors

    with tqdm(unit="epoch", dynamic_ncols=True) as bar:

        def progress(epoch, total, loss):
            bar.total = total
            bar.update(epoch - bar.n)
            bar.set_postfix_str(f"validation loss {loss:.3g}")

        emulator = train_published(data, epochs=epochs, units=units, seed=seed, progress=progress)
    return add_test_errors(emulator, data)


@contextlib.contextmanager
def _training_bar(total):
    """Progress bar that appears with the first update, so that a mistake found before is one line."""
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:
        bar, validation = None, ""

        def progress(update, training_percent, validation_percent):
            nonlocal bar, validation
            if bar is None:
                bar = stack.enter_context(tqdm(total=total, unit="update", dynamic_ncols=True))
            if validation_percent is not None:
                validation = f", validation {validation_percent:.3f} %"
            bar.set_postfix_str(f"training {training_percent:.3f} %{validation}", refresh=False)
            bar.update(update - bar.n)

        yield progress


def _show_errors(errors):
    rows = [(key.replace("_", " "), f"{value:.4g}") for key, value in errors.items()]
    print_table(("error", ""), rows)


def evaluate(
    emulator: Annotated[str, typer.Argument(help="Name of a shipped emulator, or an emulator file.")],
    signals: Annotated[
        Path | None, typer.Argument(help="Signal set; by default the emulator's own test set.")
    ] = None,
    spec: Spec = None,
    split: Annotated[str, typer.Option(help="Split to use: train, val, test or all.")] = "test",
    low: Annotated[Optional[float], typer.Option(help="Lower band edge in MHz.")] = None,  # noqa: UP045
    high: Annotated[Optional[float], typer.Option(help="Upper band edge in MHz.")] = None,  # noqa: UP045
    picture: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--plot", callback=writable_as(".png"), help="Plot the errors to this PNG file."),
    ] = None,
    json_file: Json = None,
):
    """Evaluate the errors of an emulator on a signal set."""
    from dataclasses import asdict

    from lstmfit.emulator.emulator import Emulator
    from lstmfit.emulator.train_emulator import evaluate as evaluate_emulator
    from lstmfit.emulator.train_emulator import evaluation_split, other_errors

    loaded = Emulator.load(emulator)
    data = evaluation_split(loaded, emulator, signals, split, spec)
    errors = asdict(evaluate_emulator(loaded, data, low, high))
    _show_errors(errors)
    others = other_errors(loaded, data)
    if others:
        rows = [(name, f"{e['rms']:.3g}", f"{e['max']:.3g}") for name, e in others.items()]
        print_table(("other outputs", "rms error", "largest"), rows)
        errors["outputs"] = others
    if picture is not None:
        from lstmfit.analysis.evaluation import errors_picture

        errors_picture(loaded, data, picture, low, high)
    write_json(errors, json_file)


def emulators(json_file: Json = None):
    """List the shipped emulators, and the formats of other groups that can be read."""
    from lstmfit.emulator.emulator import Emulator, shipped
    from lstmfit.emulator.formats import FORMATS

    rows, content = [], {}
    for name, path in shipped().items():
        emulator = Emulator.load(name, engine="numpy")
        content[name] = _description(emulator, path)
        c = content[name]
        error = f"{c['test'].get('mean_percent', float('nan')):.3f} %"
        grid = f"z {c['redshifts']['min']:g} to {c['redshifts']['max']:g}, {c['redshifts']['n']}"
        rows.append((name, c["trained_on"], error, c["published_error"], grid, ", ".join(c["outputs"])))
    print_table(("name", "trained on", "mean error", "error of that (published)", "grid", "outputs"), rows)
    ranges = [
        (name, p["name"], f"{p['min']:.4g}", f"{p['max']:.4g}", "log" if p["log"] else "", p["unit"])
        for name, c in content.items()
        for p in c["parameters"]
    ]
    print_table(("emulator", "parameter", "min", "max", "", "unit"), ranges)
    print_table(("emulators of other groups", "give", "parameters"), FORMATS)
    write_json(content, json_file)


def _description(emulator, path) -> dict:
    """What the JSON says of a shipped emulator."""
    from dataclasses import asdict

    teacher, z = emulator.record.get("teacher", {}), emulator.redshifts
    return {
        "file": str(path),
        "network": emulator.network,
        "outputs": list(emulator.layout),
        "redshifts": {"min": float(z[0]), "max": float(z[-1]), "n": len(z)},
        "parameters": [asdict(p) for p in emulator.parameters],
        "trained_on": emulator.record.get("simulator", "unknown"),
        "test": emulator.record.get("test", {}),
        "teacher": teacher,
        # A simulator is the truth itself.
        "published_error": teacher.get("published_error", "unknown") if teacher else "none: a simulator",
    }


@data.command("list")
def data_list():
    """List the public data sets that `fetch` knows."""
    from lstmfit.datasets.public import PUBLIC, state

    rows = [(name, item.what, item.url, state(name)) for name, item in PUBLIC.items()]
    print_table(("name", "content", "source", "status"), rows)


@data.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="Name from `lstmfit data list`.")],
    output: Annotated[Optional[Path], typer.Option("-o", help="Output folder; by default the cache.")] = None,  # noqa: UP045
    source: Annotated[Optional[str], typer.Option("--from", help="Mirror URL or local file to use instead.")] = None,  # noqa: UP045
):
    """Fetch a public data set, verify it and print its path."""
    from lstmfit.datasets.public import fetch

    typer.echo(fetch(name, output, source))


def bench(
    emulators: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Names of shipped emulators or emulator files.", show_default="echo21"),
    ] = None,
    peers: Annotated[bool, typer.Option(help="Also time XLA and the published network (needs TensorFlow).")] = True,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Time engines, training and a BlackJAX fit on a GPU and the CPU instead.")
    ] = False,
    json_file: Json = None,
):
    """Time emulators, and the first of them next to its alternatives."""
    from lstmfit.benchmark import run_bench

    emulators = emulators or ["echo21"]
    if gpu:
        from lstmfit.gpu_benchmark import run_gpu_bench

        if len(emulators) > 1:
            raise InputError(f"bench --gpu takes one emulator, not {len(emulators)}; run it once for each")
        measured = run_gpu_bench(emulators[0])
        _show_gpu_bench(measured)
        write_json(measured, json_file)
        return
    results = run_bench(*emulators, peers=peers)
    rows = [
        (name, r["engine"], _number(r["single_ms"], 3), _number(r["batched_us"], 1), r["threads"])
        for name, r in results.items()
    ]
    print_table(("network", "engine", "single [ms]", "batched [us per signal]", "threads"), rows)
    write_json(results, json_file)


def _show_gpu_bench(results):
    devices, engines = results["devices"], {k: v for k, v in results["engines"].items() if v is not None}
    where = {"numba": devices["cpu"], "xla": devices["tensorflow"], "jax": devices["jax"]}
    sizes = list(engines["numba"]["batched_us"])
    columns = ("engine", "device", "single [ms]", *(f"{int(n):,} [us per signal]" for n in sizes))
    print_table(
        columns,
        [
            (name, where[name], _number(e["single_ms"], 3), *(_number(e["batched_us"][n], 2) for n in sizes))
            for name, e in engines.items()
        ],
    )
    rows = []
    for place, label in (("gpu", devices["tensorflow"]), ("cpu", devices["cpu"])):
        if results["training"][place] is not None:
            rows.append(("training [updates per second]", label, _number(results["training"][place], 1), ""))
    for place, label in (("gpu", devices["jax"]), ("cpu", devices["cpu"])):
        fit = results["fit"][place]
        if fit is not None:
            logZ = f"logZ {fit['logZ']:.2f} +- {fit['logZ_err']:.2f}, {fit['n_like']:,} calls"
            rows.append(("BlackJAX fit [s]", label, _number(fit["wall_s"], 1), logZ))
    print_table(("", "device", "", ""), rows)


def _number(value, digits):
    return "" if value is None else f"{value:.{digits}f}"
