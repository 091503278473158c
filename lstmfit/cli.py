"""The command line: thin over the package's functions."""

import contextlib
import json
import logging
import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from lstmfit._version import __version__
from lstmfit.console import ProgressLine, duration, print_table, with_error, write_json
from lstmfit.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fits of the global 21-cm signal with an LSTM emulator, and the bias that the emulator causes.",
)
data_app = typer.Typer(no_args_is_help=True, help="Public data sets: list, fetch.")
app.add_typer(data_app, name="data")

Json = Annotated[Optional[str], typer.Option("--json", metavar="FILE|-", help="Write the figures as JSON.")]  # noqa: UP045
Jobs = Annotated[Optional[int], typer.Option("--jobs", help="Processes; all cores by default.")]  # noqa: UP045


def main() -> None:
    """Entry point of the console script: errors of the user become one line and exit status 2."""
    from lstmfit.sampling.mpi import stopping_all_ranks

    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    # It tells of every kind of accelerator that it does not find.
    logging.getLogger("jax").setLevel(logging.WARNING)
    try:
        with stopping_all_ranks():
            app()
    except InputError as error:
        sys.stderr.write(f"lstmfit: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("lstmfit: interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)


def _version(value: bool):
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
):
    """Take the options that stand before a command."""


RESUME_STATUS = 75
"""Exit status of a fit that stopped before its end and wants --resume: EX_TEMPFAIL of sysexits.h."""


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+\.?[0-9]*)([smh])", text)
    if found is None or float(found[1]) <= 0:
        raise InputError(f"time limit is {text!r}; expected a positive number and s, m or h, like 90s, 30m or 11.5h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@contextlib.contextmanager
def _stopping_to_resume(seconds: float | None):
    """End the run after so many seconds, or at SIGUSR1 (a batch system's warning), so that it can be resumed."""
    from lstmfit.sampling import mpi

    def stop(_signal, _frame):
        if mpi.promised_rank() == 0:
            sys.stderr.write("lstmfit: stopped before the end; go on with --resume\n")
        raise SystemExit(RESUME_STATUS)

    signals = (signal.SIGALRM, signal.SIGUSR1)
    before = [signal.signal(s, stop) for s in signals]
    if seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for s, handler in zip(signals, before):
            signal.signal(s, handler)


@app.command()
def fit(
    run: Annotated[str, typer.Argument(help="Run file, or the name of a shipped one.")],
    output: Annotated[Optional[Path], typer.Option("-o", "--output", help="Output folder.")] = None,  # noqa: UP045
    jobs: Jobs = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run that is in the folder.")] = False,
    time_limit: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Stop after 90s, 30m or 12h with exit status 75, to be resumed; so does SIGUSR1."),
    ] = None,
):
    """Run a fit: the run file's sampler on all cores, or over MPI under mpirun."""
    from lstmfit.driver import fit as run_fit
    from lstmfit.sampling import mpi

    first = mpi.rank() == 0
    line = ProgressLine() if first else None
    try:
        with _stopping_to_resume(_seconds(time_limit)):
            folder = run_fit(run, output, jobs=jobs, resume=resume, force=force, progress=line)
    finally:
        if line is not None:
            line.close()
    if first:
        _show_summary(folder)


SUSPICIOUS = (
    ": the points were not drawn uniformly inside their contours; raise num_repeats (blackjax: num_inner_steps), "
    "see docs/sampling.md"
)


def _show_summary(folder):
    from lstmfit.analysis.insertion import SMALL

    summary = json.loads((folder / "summary.json").read_text())
    rows = []
    for name, p in summary["parameters"].items():
        truth = "" if p["truth"] is None else f"{p['truth']:.4g}"
        label = f"log10 {name}" if p.get("log10") else name
        rows.append((label, f"{p['mean']:.4g}", f"{p['std']:.2g}", f"{p['lo68']:.4g}", f"{p['hi68']:.4g}", truth))
    print_table(("parameter", "mean", "std", "68 % from", "to", "truth"), rows)
    typer.echo(
        f"logZ {summary['logZ']:.2f} ± {summary['logZ_err']:.2f}   D_KL {summary['D_KL']:.2f} nat   "
        f"{summary['n_like']:,} calls in {duration(summary['wall_s'])}   {folder}"
    )
    p = summary["insertion_p"]
    if p is not None:
        typer.echo(f"insertion-index test p {p:.2g}{'' if p > SMALL else SUSPICIOUS}")


@app.command()
def plot(folder: Annotated[Path, typer.Argument(help="Output folder of a fit.")]):
    """Draw corner.png and signal.png of a finished fit again."""
    from lstmfit.analysis import plots
    from lstmfit.analysis.chains import read_run
    from lstmfit.driver import load_problem

    done = read_run(folder, load_problem(folder))
    for name in ("corner", "signal"):
        getattr(plots, name)(done, folder / f"{name}.png")
        typer.echo(folder / f"{name}.png")


@app.command()
def bias(
    folder: Annotated[Path, typer.Argument(help="Output folder of a fit with an emulator.")],
    truth: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Simulator, or the folder of a direct fit; by default what the emulator was trained on."),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Posterior points to simulate; finished ones are reused.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the choice of points.")] = 0,
    jobs: Jobs = None,
    json_file: Json = None,
):
    """Measure how far the emulator moved posterior and evidence, against the simulator."""
    from lstmfit.analysis.bias import bias_between, measure_bias, write_bias
    from lstmfit.analysis.chains import read_run
    from lstmfit.driver import load_problem

    done = read_run(folder, load_problem(folder))
    if truth is not None and Path(truth).is_dir():
        result = bias_between(done, read_run(truth, load_problem(truth)), seed)
    else:
        with _bar("point") as progress:
            result = measure_bias(done, truth, n, jobs=jobs, seed=seed, progress=progress)
        write_bias(folder, result)
    _show_bias(result)
    write_json(result, json_file)


@contextlib.contextmanager
def _bar(unit):
    from tqdm import tqdm

    with tqdm(unit=unit, dynamic_ncols=True, disable=None) as bar:

        def progress(done, total):
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _show_bias(result):
    from lstmfit.analysis.bias import bias_lines

    rows = []
    for name, p in result["parameters"].items():
        true_bias = "" if p["true_bias"] is None else f"{p['true_bias']:.2f}"
        rows.append((name, f"{p['shift']:+.3f}", f"{p['bias_err']:.3f}", f"{p['std_ratio']:.3f}", true_bias))
    print_table(("parameter", "emulated - true (sigma)", "±", "width ratio", "true bias"), rows)
    for line in bias_lines(result):
        typer.echo(line)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A run's folder, or the beginning of any chain's file names.")],
    b: Annotated[Path, typer.Argument(help="The other; the truth where there is one.")],
    log10: Annotated[str, typer.Option(metavar="NAME,...", help="Columns to take log10 of.")] = "",
    plot: Annotated[Optional[Path], typer.Option("--plot", help="PNG of both corner plots.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Seed of the estimates' draws.")] = 0,
    json_file: Json = None,
):
    """Compare two posteriors: any chains that anesthetic reads, parameters matched by name."""
    from lstmfit.analysis.compare import align
    from lstmfit.analysis.compare import compare as compare_chains
    from lstmfit.analysis.foreign_chains import read_chain

    one, two, names = align(read_chain(a), read_chain(b), [n for n in log10.split(",") if n])
    result = compare_chains(one.samples, two.samples, names, seed)
    if plot is not None:
        from lstmfit.analysis.plots import corner_of_two

        corner_of_two(one, two, names, plot)
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
    typer.echo(
        f"bias |mean A - mean B| / std B: {result['mean_bias']:.2f} on average, at most "
        f"{result['parameters'][worst]['bias']:.2f} ({worst})"
    )
    for ending, what in (("", "D_KL(B || A)"), ("_reverse", "D_KL(A || B)")):
        parts = [
            f"{name} {with_error(result[key + ending], result[key + ending + '_err'])}"
            for name, key in (("Gaussian", "D_KL_gaussian"), ("nearest neighbours", "D_KL"))
        ]
        typer.echo(f"{what} [nat]: {', '.join(parts)}")
    for label in "ab":
        logz = with_error(result[f"logZ_{label}"], result[f"logZ_{label}_err"], 2)
        size = f"{result[f'n_{label}']:,} rows worth {result[f'ess_{label}']:,.0f}"
        typer.echo(f"{label.upper()}: logZ {logz}, {size}")
    typer.echo(f"logZ of B minus logZ of A: {with_error(result['dlogZ'], result['dlogZ_err'], 2)}")
    write_json(result, json_file)


@app.command()
def calibrate(
    run: Annotated[str, typer.Argument(help="Run file, or the name of a shipped one.")],
    n: Annotated[int, typer.Option("-n", help="Mocks drawn from the prior.")] = 100,
    output: Annotated[Optional[Path], typer.Option("-o", "--output", help="Folder of the campaign.")] = None,  # noqa: UP045
    points: Annotated[int, typer.Option(help="Posterior points to simulate in each fit; 0 for none.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the mocks.")] = 0,
    jobs: Jobs = None,
    json_file: Json = None,
):
    """Fit many mocks drawn from the prior: ranks, coverage, emulation bias; repeat the command to go on."""
    from lstmfit.calibration import calibrate as run_campaign

    output = Path("chains") / f"calibration_{Path(run).stem}" if output is None else output
    with _bar("mock") as progress:
        result = run_campaign(run, output, n, points=points, jobs=jobs, seed=seed, progress=progress)
    if result is None:
        return
    levels = (50, 68, 90, 95)
    rows = [
        (
            name,
            *(f"{p[f'coverage_{level}']:.2f}" for level in levels),
            f"{p['rank_ks_p']:.2g}",
            f"{p['z_mean']:+.2f} ± {p['z_mean_err']:.2f}",
            f"{p['z_std']:.2f}",
        )
        for name, p in result["parameters"].items()
    ]
    print_table(("coverage of", *(f"{level} %" for level in levels), "ranks p", "mean z", "std z"), rows)
    p = next(iter(result["parameters"].values()))
    bands = (f"{p[f'coverage_{level}_low']:.2f} to {p[f'coverage_{level}_high']:.2f}" for level in levels)
    typer.echo(f"19 calibrated fits in 20 cover {', '.join(bands)}")
    if "chi2" in result:
        typer.echo(f"chi-square of the truth over its expectation: {with_error(*result['chi2'].values(), 2)}")
    if "emulation" in result:
        e = result["emulation"]
        typer.echo(
            f"emulation bias over {e['n']} mocks: largest shift {e['largest_shift_mean']:.3f} sigma on average, "
            f"{e['largest_shift_p95']:.3f} at 95 %; D_KL {e['D_KL_mean']:.4f} nat, {e['D_KL_p95']:.4f} at 95 %; "
            f"trusted {100 * e['trusted']:.0f} %"
        )
    typer.echo(f"{result['n']} mocks fitted, {result['n_failed']} failed   {output}")
    write_json(result, json_file)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Output folder of a fit.")],
    output: Annotated[Optional[Path], typer.Option("-o", "--output", help="HTML file.")] = None,  # noqa: UP045
):
    """Write one self-contained HTML file about a finished fit: answer, pictures, emulation bias, references."""
    from lstmfit.analysis.chains import read_run
    from lstmfit.analysis.report import write_report
    from lstmfit.driver import load_problem

    typer.echo(write_report(read_run(folder, load_problem(folder)), output))


@app.command()
def check(
    run: Annotated[str, typer.Argument(help="Run file, or the name of a shipped one.")],
    json_file: Json = None,
):
    """Build everything, evaluate and time each part, predict the run time and bound the emulator's harm."""
    from lstmfit.checks import check_run

    report = check_run(run)
    verdict, shifts = report.get("verdict"), report.get("shifts", {})
    shown = {k: v for k, v in report.items() if k not in ("verdict", "shifts") and v is not None}
    shown |= {f"mean shift of {name} (sigma)": v for name, v in shifts.items()}
    rows = [(k.replace("_", " "), f"{v:.4g}" if isinstance(v, float) else v) for k, v in shown.items()]
    print_table(("check", ""), rows)
    if verdict is not None:
        typer.echo(f"emulator: {verdict}")
    write_json(report, json_file)


@app.command()
def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file to make.")],
    n: Annotated[int, typer.Option("-n", help="Training signals.")],
    design: Annotated[str, typer.Option(help="sobol or uniform.")] = "sobol",
    seed: Annotated[int, typer.Option(help="Seed of all splits.")] = 0,
    simulator: Annotated[str, typer.Option(help="Name, or package.module:attribute of your own.")] = "echo21",
    n_val: Annotated[Optional[int], typer.Option(help="Validation signals.")] = None,  # noqa: UP045
    n_test: Annotated[Optional[int], typer.Option(help="Test signals.")] = None,  # noqa: UP045
    jobs: Jobs = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
):
    """Simulate training, validation and test signals; repeat the command to go on after an interruption."""
    from lstmfit.simulators.campaign import simulate_set

    done = simulate_set(
        output, n, simulator=simulator, design=design, seed=seed, n_val=n_val, n_test=n_test, jobs=jobs, force=force
    )
    if done is not None:
        failed = f"; {done.n_failed} failed (group 'failed')" if done.n_failed else ""
        typer.echo(f"{done.path}: {done.n_train} training, {done.n_val} validation, {done.n_test} test signals{failed}")


@app.command()
def train(
    signals: Annotated[Path, typer.Argument(help="Set of signals.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Emulator file to make.")],
    updates: Annotated[Optional[int], typer.Option(help="Gradient steps.")] = None,  # noqa: UP045
    batch: Annotated[Optional[int], typer.Option(help="Signals a step.")] = None,  # noqa: UP045
    learning_rate: Annotated[Optional[float], typer.Option(help="Peak learning rate.")] = None,  # noqa: UP045
    units: Annotated[Optional[int], typer.Option(help="LSTM units a layer.")] = None,  # noqa: UP045
    steps: Annotated[Optional[int], typer.Option(help="Steps of the recurrence.")] = None,  # noqa: UP045
    architecture: Annotated[str, typer.Option(help="patched, or published: the 21cmLSTM of 2024.")] = "patched",
    epochs: Annotated[float, typer.Option(help="Published: fraction of its authors' 175 epochs.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of weights and order.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
):
    """Train an emulator; its checkpoint is OUTPUT.checkpoint."""
    from lstmfit.datasets.signals import load_signals, write_test_set
    from lstmfit.emulator.emulator import test_set_path
    from lstmfit.emulator.fitting import train_emulator
    from lstmfit.emulator.training import Recipe

    if output.exists() and not force:
        raise InputError(f"{output} is there already; use --force to replace it")
    checkpoint = output.with_name(output.name + ".checkpoint")
    if checkpoint.exists() and not (resume or force):
        raise InputError(f"{checkpoint} is of an unfinished training; use --resume to go on or --force to start anew")
    if architecture not in ("patched", "published"):
        raise InputError(f"architecture is {architecture!r}; expected patched or published")
    given = {"updates": updates, "batch": batch, "learning_rate": learning_rate}
    recipe = Recipe(seed=seed, **{key: value for key, value in given.items() if value is not None})
    sizes = {key: value for key, value in {"units": units, "steps": steps}.items() if value is not None}
    data = load_signals(signals)
    if architecture == "published":
        emulator = _train_published(data, epochs, units, seed)
    else:
        with _training_bar(recipe.updates) as progress:
            emulator = train_emulator(
                data, recipe, sizes, name=output.stem, checkpoint=checkpoint, resume=resume, progress=progress
            )
    if len(data.test):
        write_test_set(test_set_path(output), data)
    emulator.save(output)
    checkpoint.unlink(missing_ok=True)
    typer.echo(f"{output}: {emulator!r}")
    if "test" in emulator.record:
        _show_errors(emulator.record["test"])


def _train_published(data, epochs, units, seed):
    from tqdm import tqdm

    from lstmfit.emulator.fitting import add_test_errors
    from lstmfit.emulator.published import train_published

    with tqdm(unit="epoch", dynamic_ncols=True) as bar:

        def progress(epoch, total, loss):
            bar.total = total
            bar.update(epoch - bar.n)
            bar.set_postfix_str(f"validation loss {loss:.3g}")

        emulator = train_published(data, epochs=epochs, units=units, seed=seed, progress=progress)
    return add_test_errors(emulator, data)


@contextlib.contextmanager
def _training_bar(total):
    from tqdm import tqdm

    with tqdm(total=total, unit="update", dynamic_ncols=True) as bar:

        def progress(update, training_percent, validation_percent):
            bar.update(update - bar.n)
            bar.set_postfix_str(f"training {training_percent:.3f} %, validation {validation_percent:.3f} %")

        yield progress


def _show_errors(errors):
    rows = [(key.replace("_", " "), f"{value:.4g}") for key, value in errors.items()]
    print_table(("error", ""), rows)


@app.command()
def evaluate(
    emulator: Annotated[str, typer.Argument(help="Shipped name or emulator file.")],
    signals: Annotated[Optional[Path], typer.Argument(help="Set of signals; its own test set by default.")] = None,  # noqa: UP045
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    low: Annotated[Optional[float], typer.Option(help="Lower band edge in MHz.")] = None,  # noqa: UP045
    high: Annotated[Optional[float], typer.Option(help="Upper band edge in MHz.")] = None,  # noqa: UP045
    picture: Annotated[Optional[Path], typer.Option("--plot", help="Draw the errors into this PNG.")] = None,  # noqa: UP045
    json_file: Json = None,
):
    """Errors of an emulator on a set of signals."""
    from dataclasses import asdict

    from lstmfit.emulator.emulator import Emulator
    from lstmfit.emulator.fitting import evaluate as evaluate_emulator
    from lstmfit.emulator.fitting import evaluation_split

    loaded = Emulator.load(emulator)
    data = evaluation_split(loaded, emulator, signals, split)
    errors = asdict(evaluate_emulator(loaded, data, low, high))
    _show_errors(errors)
    if picture is not None:
        from lstmfit.analysis.evaluation import errors_picture

        errors_picture(loaded, data, picture)
    write_json(errors, json_file)


@app.command()
def emulators(json_file: Json = None):
    """List the emulators that are shipped."""
    from lstmfit.emulator import store
    from lstmfit.emulator.emulator import shipped

    rows, content = [], {}
    for name, path in shipped().items():
        parts = store.read(path)
        test, a = parts["record"].get("test", {}), parts["architecture"]
        network = f"{a.layers} x LSTM({a.units}), {a.steps} steps"
        names = ", ".join(p.name for p in parts["parameters"])
        outputs = ", ".join((*a.histories, *a.scalars))
        rows.append((name, f"{test.get('mean_percent', float('nan')):.3f} %", network, outputs, names))
        content[name] = {"file": str(path), "network": network, "outputs": outputs, "parameters": names, "test": test}
    print_table(("name", "mean error", "network", "outputs", "parameters"), rows)
    write_json(content, json_file)


@data_app.command("list")
def data_list():
    """List the public data sets that `fetch` knows."""
    from lstmfit.datasets.public import PUBLIC

    print_table(("name", "what", "where"), [(name, item.what, item.url) for name, item in PUBLIC.items()])


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="Name from `lstmfit data list`.")],
    output: Annotated[Optional[Path], typer.Option("-o", help="Folder; the cache by default.")] = None,  # noqa: UP045
    source: Annotated[Optional[str], typer.Option("--from", help="A mirror or a local file.")] = None,  # noqa: UP045
):
    """Fetch a public data set, verify it, and say where it lies."""
    from lstmfit.datasets.public import fetch

    typer.echo(fetch(name, output, source))


@app.command()
def bench(
    emulator: Annotated[str, typer.Argument(help="Shipped name or emulator file.")] = "echo21",
    peers: Annotated[bool, typer.Option(help="Also XLA and the published network (TensorFlow).")] = True,
    json_file: Json = None,
):
    """Time a signal on one core, side by side with what a user would otherwise use."""
    from lstmfit.benchmark import run_bench

    results = run_bench(emulator, peers)
    rows = [
        (name, r["engine"], _number(r["single_ms"], 3), _number(r["batched_us"], 1), r["threads"])
        for name, r in results.items()
    ]
    print_table(("network", "engine", "single [ms]", "batched [us a signal]", "threads"), rows)
    write_json(results, json_file)


def _number(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


@app.command()
def doctor(
    install_polychord: Annotated[bool, typer.Option("--install-polychord", help="Build PolyChord here.")] = False,
):
    """Say what is installed, and what to type where something is missing."""
    from lstmfit.doctor import examine

    if install_polychord:
        from lstmfit.sampling.build import install_polychord as install

        typer.echo(install(log=typer.echo))
    print_table(("part", "found", "to mend"), examine())
