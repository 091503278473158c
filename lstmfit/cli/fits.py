"""Commands for fits: run, plot, report, measure the emulation bias."""

import contextlib
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Optional

import typer

from lstmfit.cli.options import Jobs, Json, Trust, writable_as, writable_folder
from lstmfit.console import ProgressLine, duration, print_table, say, with_error, write_json
from lstmfit.errors import InputError

RESUME_STATUS = 75
"""Exit status of a fit that stopped early and can be resumed: EX_TEMPFAIL of sysexits.h."""


def seconds_of(text: str | None) -> float | None:
    """Seconds of a time limit such as 90s, 30m or 11.5h."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}\.?[0-9]{0,9})([smh])", text)
    if found is None or float(found[1]) <= 0:
        raise InputError(f"time limit is {text!r}; expected a positive number with s, m or h, like 90s, 30m or 11.5h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@contextlib.contextmanager
def ending_well(seconds: float | None, how: Callable[[], str]):
    """Report how to resume a run that ends early: at its time limit, or on SIGUSR1, SIGTERM or Ctrl-C.

    SIGUSR1 is the warning of a batch system. It and the time limit give the exit status `RESUME_STATUS`. `how` gives
    the text, which is that of the moment.
    """
    from lstmfit import mpi

    def say_how(what):
        # Every rank gets the signal; only the first one reports it, and ends them all.
        if mpi.promised_rank() == 0:
            sys.stderr.write(f"lstmfit: {what}; {how()}\n")

    def stop(number, _frame):
        if number == signal.SIGTERM:
            say_how("terminated")
            raise SystemExit(128 + number)
        if mpi.promised_rank() == 0:
            say_how("stopped before the end")
            raise SystemExit(RESUME_STATUS)

    signals = (signal.SIGALRM, signal.SIGUSR1, signal.SIGTERM)
    before = [signal.signal(s, stop) for s in signals]
    if seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except KeyboardInterrupt:
        say_how("interrupted")
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for s, handler in zip(signals, before):
            signal.signal(s, handler)


def fit(
    run: Annotated[str, typer.Argument(help="Run file, or the name of a shipped one.")],
    output: Annotated[Optional[Path], typer.Option("-o", "--output", help="Output folder.")] = None,  # noqa: UP045
    jobs: Jobs = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an unfinished run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing run in the output folder.")] = False,
    time_limit: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Stop after e.g. 90s, 30m or 12h with exit status 75; resume later. SIGUSR1 does the same."),
    ] = None,
):
    """Fit a run file on all cores, or with MPI under mpirun."""
    from lstmfit import config, mpi, run_folder
    from lstmfit.driver import fit as run_fit
    from lstmfit.driver import output_folder

    seconds = seconds_of(time_limit)
    folder = output_folder(config.load(run), run, output)
    first = mpi.rank() == 0
    line = ProgressLine() if first else None

    def how():
        begun = run_folder.state(folder) in ("unfinished", "finished")
        return f"to resume, repeat the command with --resume (folder {folder})" if begun else "nothing was written"

    try:
        with ending_well(seconds, how):
            run_fit(run, folder, jobs=jobs, resume=resume, force=force, progress=line)
    finally:
        if line is not None:
            line.close()
    if first:
        _show_summary(folder)


SUSPICIOUS = (
    ": new points were not drawn uniformly within their likelihood contours; increase num_repeats "
    "(blackjax: num_inner_steps), see docs/sampling.md"
)


def _show_summary(folder):
    from lstmfit.analysis.chains import read_summary
    from lstmfit.analysis.goodness import doubts
    from lstmfit.analysis.insertion import SMALL
    from lstmfit.analysis.summary import mean_with_error

    summary = read_summary(folder)
    rows = []
    for name, p in summary["parameters"].items():
        truth = "" if p["truth"] is None else f"{p['truth']:.4g}"
        label = f"log10 {name}" if p.get("log10") else name
        rows.append((label, mean_with_error(p), f"{p['std']:.2g}", f"{p['lo68']:.4g}", f"{p['hi68']:.4g}", truth))
    print_table(("parameter", "mean ± its error", "std", "68 % low", "68 % high", "truth"), rows)
    say(
        f"logZ {summary['logZ']:.2f} ± {summary['logZ_err']:.2f}   D_KL {summary['D_KL']:.2f} nat   "
        f"{summary['n_like']:,} likelihood calls in {duration(summary['wall_s'])}   {folder}"
    )
    p = summary.get("insertion_p")
    if p is not None:
        say(f"insertion-index test: p = {p:.2g}{'' if p > SMALL else SUSPICIOUS}")
    if summary["fit"] is not None and summary["fit"]["verdict"]["fits"]:
        say(summary["fit"]["verdict"]["text"])
    for line in doubts(summary):
        say(f"warning: {line}")


def plot(folder: Annotated[Path, typer.Argument(help="Output folder of a fit.")], trust: Trust = False):
    """Redraw corner.png and signal.png of a finished fit."""
    from lstmfit.analysis import plots
    from lstmfit.analysis.chains import read_run

    done = read_run(folder, trust)
    writable_folder(folder)
    for name in ("corner", "signal"):
        getattr(plots, name)(done, folder / f"{name}.png")
        say(folder / f"{name}.png")


def bias(
    folder: Annotated[Path, typer.Argument(help="Output folder of an emulator fit.")],
    truth: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Simulator, or run folder of a direct fit; by default what the emulator was trained on."),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Posterior points to simulate; existing simulations are reused.")] = 500,
    seed: Annotated[int, typer.Option(help="Random seed of the choice of points.")] = 0,
    jobs: Jobs = None,
    trust: Trust = False,
    json_file: Json = None,
):
    """Measure the emulation bias of posterior and evidence.

    The simulator is evaluated at points of the posterior, which are reweighted; or give a direct fit as --truth.
    """
    from lstmfit.analysis.bias import bias_between, measure_bias, write_bias
    from lstmfit.analysis.chains import read_run

    done = read_run(folder, trust)
    if truth is not None and Path(truth).is_dir():
        result = bias_between(done, read_run(truth, trust), seed)
    else:
        writable_folder(folder)
        with bar("point") as progress:
            result = measure_bias(done, truth, n, jobs=jobs, seed=seed, progress=progress)
        write_bias(folder, result)
    _show_bias(result)
    write_json(result, json_file)


@contextlib.contextmanager
def bar(unit: str):
    """Progress bar of tasks, called with (finished, n)."""
    from tqdm import tqdm

    with tqdm(unit=unit, dynamic_ncols=True, disable=None) as line:

        def progress(done, total):
            line.total = total
            line.update(done - line.n)

        yield progress


def _show_bias(result):
    from lstmfit.analysis.bias import bias_lines

    rows = []
    for name, p in result["parameters"].items():
        true_bias = "" if p["true_bias"] is None else f"{p['true_bias']:.2f}"
        rows.append((name, f"{p['shift']:+.3f}", f"{p['bias_err']:.3f}", f"{p['std_ratio']:.3f}", true_bias))
    print_table(("parameter", "emulated - true [sigma]", "±", "width ratio", "true bias"), rows)
    for line in bias_lines(result):
        say(line)


def calibrate(
    run: Annotated[str, typer.Argument(help="Run file, or the name of a shipped one.")],
    n: Annotated[int, typer.Option("-n", help="Number of mocks drawn from the prior.")] = 100,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--output", callback=writable_folder, help="Output folder of the campaign."),
    ] = None,
    truth: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Simulator or emulator that makes the mocks; by default what the emulator was trained on."),
    ] = None,
    points: Annotated[int, typer.Option(help="Posterior points of each fit to simulate; 0 for none.")] = 200,
    seed: Annotated[int, typer.Option(help="Random seed of the mocks.")] = 0,
    jobs: Jobs = None,
    json_file: Json = None,
):
    """Fit mocks drawn from the prior: ranks, coverage, bias.

    Repeat the command to resume after an interruption.
    """
    from lstmfit.calibration import calibrate as run_campaign

    output = Path("chains") / f"calibration_{Path(run).stem}" if output is None else output
    with bar("mock") as progress:
        result = run_campaign(run, output, n, truth=truth, points=points, jobs=jobs, seed=seed, progress=progress)
    if result is None:
        return
    levels = (50, 68, 90, 95)
    rows = [
        (
            name,
            *(f"{p[f'coverage_{level}']:.2f}" for level in levels),
            f"{p['rank_ks_p']:.2g}",
            with_error(p["z_mean"], p["z_mean_err"], 2),
            "–" if p["z_std"] is None else f"{p['z_std']:.2f}",
        )
        for name, p in result["parameters"].items()
    ]
    print_table(("coverage of", *(f"{level} %" for level in levels), "rank p", "mean z", "std z"), rows)
    p = next(iter(result["parameters"].values()))
    bands = (f"{p[f'coverage_{level}_low']:.2f} to {p[f'coverage_{level}_high']:.2f}" for level in levels)
    say(f"95 % range for a calibrated fit: {', '.join(bands)}")
    if "chi2" in result:
        say(f"chi-square at the truth over its expected value: {with_error(*result['chi2'].values(), 2)}")
    if "emulation" in result:
        e = result["emulation"]
        say(
            f"emulation bias over {e['n']} mocks: largest shift {e['largest_shift_mean']:.3f} sigma on average, "
            f"{e['largest_shift_p95']:.3f} at 95 %; D_KL {e['D_KL_mean']:.4f} nat, {e['D_KL_p95']:.4f} at 95 %; "
            f"trusted: {100 * e['trusted']:.0f} %"
        )
    say(f"{result['n']} mocks fitted, {result['n_failed']} failed   {output}")
    write_json(result, json_file)


def report(
    folder: Annotated[Path, typer.Argument(help="Output folder of a fit.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "-o",
            "--output",
            callback=writable_as(".html", ".htm"),
            help="HTML file; by default report.html in the run folder.",
        ),
    ] = None,
    trust: Trust = False,
):
    """Write a self-contained HTML report of a finished fit.

    It contains results, figures, the emulation bias if measured, and references.
    """
    from lstmfit.analysis.chains import read_run
    from lstmfit.analysis.report import write_report

    done = read_run(folder, trust)
    if output is None:
        writable_folder(folder)
    say(write_report(done, output))


CHECK_LABELS = {
    "parameters": "sampled parameters",
    "channels": "channels of the spectrum",
    "sampler": "sampler",
    "n_live": "live points",
    "num_repeats": "slice-sampling steps per point",
    "finite_fraction": "fraction of prior draws with non-zero likelihood",
    "best_loglike_of_draws": "largest ln L of the prior draws",
    "prior_us": "prior transform [µs per call]",
    "signal_us": "signal [µs per call]",
    "likelihood_us": "likelihood [µs per call]",
    "total_us": "total [µs per call]",
    "calls_expected": "expected likelihood calls",
    "signals_expected": "of which with a new signal",
    "seconds_expected_on_one_core": "expected time on one core [s]",
    "emulator_mean_rms_mK": "emulator error, mean rms [mK]",
    "emulator_p95_rms_mK": "emulator error, 95th percentile of rms [mK]",
    "D_KL_bound_mean": "bound on D_KL for the mean error [nat]",
    "D_KL_bound_p95": "bound on D_KL for the 95th-percentile error [nat]",
    "D_KL_linear_mean": "D_KL in the linear approximation, mean [nat]",
    "D_KL_linear_p95": "D_KL in the linear approximation, 95th percentile [nat]",
    "shift_mean": "largest parameter shift, mean [sigma]",
    "shift_p95": "largest parameter shift, 95th percentile [sigma]",
    "good_down_to_mK": "emulator accurate enough for white noise down to [mK]",
    "logZ": "log-evidence (no free parameters)",
}
"""Labels of the keys of `lstmfit.checks.check_run`."""


def check(
    run: Annotated[str, typer.Argument(help="Run file, or the name of a shipped one.")],
    json_file: Json = None,
):
    """Check a run file before it is fitted.

    Evaluates and times each part, predicts the run time and bounds the emulator-induced error.
    """
    from lstmfit.checks import check_run

    report = check_run(run)
    found = [(CHECK_LABELS.get(key, key), value) for key, value in report.items() if key not in ("verdict", "shifts")]
    found += [(f"mean shift of {name} [sigma]", value) for name, value in report.get("shifts", {}).items()]
    shown = [(label, f"{v:.4g}" if isinstance(v, float) else f"{v}") for label, v in found if v is not None]
    print_table(("check", "value"), shown)
    if report.get("verdict") is not None:
        say(f"emulator: {report['verdict']}")
    write_json(report, json_file)
