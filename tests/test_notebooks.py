"""Notebooks: those of the documentation, and fits in a real kernel."""

import json
import time
from pathlib import Path

import nbclient
import nbformat
import pytest
from helpers import small_run, tiny_run
from jupyter_client.manager import start_new_kernel

import lstmfit
from lstmfit.run_folder import state

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
IN_CI = ("first_fit", "emulation_bias")


# ---------------------------------------------------------------- notebooks of the documentation


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow, *([pytest.mark.ci] if path.stem in IN_CI else [])], id=path.stem)
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_of_the_documentation_runs(path, tmp_path):
    """From the first cell to the last, with pictures and without a flood of output."""
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    text = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    assert sum(map(len, text)) < 10_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    """Outputs would be out of date, and megabytes in git."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 20_000
    assert notebook.cells[0].source.startswith("# ")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


# ---------------------------------------------------------------- fits in a kernel


class Kernel:
    """A kernel in a folder."""

    def __init__(self, folder):
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(folder))

    def run(self, code, during=None):
        """Run a cell and return its messages; `during` is called with each."""
        messages = []

        def hook(message):
            messages.append((message["msg_type"], message["content"]))
            if during is not None:
                during(*messages[-1])

        self.client.execute_interactive(code, timeout=300, output_hook=hook)
        return [m for m in messages if m[0] not in ("status", "execute_input")]

    def output_of(self, code):
        """What a notebook stores for a cell: one output for each message that is not an update."""
        return [(kind, content) for kind, content in self.run(code) if kind != "update_display_data"]


@pytest.fixture
def kernel(tmp_path):
    started = Kernel(tmp_path)
    assert not started.run("import lstmfit")
    yield started
    started.manager.shutdown_kernel(now=True)


def test_progress_is_one_bar_and_the_run_an_object_to_look_at(kernel, tmp_path):
    """Two jobs, although a notebook has no file that its processes could import."""
    run = json.dumps(tiny_run())
    (bar, shown) = kernel.output_of(f"run = lstmfit.fit({run}, 'run', jobs=2)\nrun")
    assert bar[0] == "display_data"
    assert "<progress" in bar[1]["data"]["text/html"]
    assert len(bar[1]["data"]["text/plain"]) < 200
    assert shown[0] == "execute_result"
    assert "<td>log10 fX</td>" in shown[1]["data"]["text/html"]
    assert json.loads((tmp_path / "run" / "chain.state.json").read_text())["ranks"] == 2
    for call in ("corner", "plot_signal"):
        (figure,) = kernel.output_of(f"run.{call}()")
        assert "image/png" in figure[1]["data"]
    (bar,) = kernel.output_of("result = run.bias(n=30, jobs=2)")
    assert bar[1]["data"]["text/plain"].endswith("1 of 30 simulations")
    (last,) = [m for m in kernel.run("again = run.bias(n=60)") if "60 of 60 simulations" in str(m)][-1:]
    assert last[1]["data"]["text/plain"].startswith("█" * 20)


@pytest.mark.slow
@pytest.mark.ci
def test_a_progress_of_your_own_replaces_the_bar(kernel):
    run = json.dumps(tiny_run())
    kernel.run("seen = []")
    assert not kernel.output_of(f"run = lstmfit.fit({run}, 'run', jobs=2, progress=seen.append)")
    (printed,) = kernel.output_of("print(len(seen) > 0, type(seen[-1]).__name__)")
    assert printed[1]["text"] == "True Progress\n"


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize(
    "sampler",
    [
        {"polychord": {"nlive": 60, "num_repeats": 10, "seed": 1}},
        {"nautilus": {"n_live": 100, "n_eff": 3000}},
    ],
    ids=lambda sampler: next(iter(sampler)),
)
def test_an_interrupted_cell_leaves_a_resumable_run(kernel, tmp_path, sampler):
    """As the stop button of Jupyter, which sends SIGINT to the kernel and to its children."""
    code = f"run = lstmfit.fit({json.dumps(small_run(sampler=sampler))}, 'run', jobs=2, resume=True)"
    interrupted = []

    def interrupt(kind, content):
        text = content.get("data", {}).get("text/plain", "") if "display" in kind else ""
        # As soon as the sampling has begun.
        if not interrupted and text and "calls 0 " not in text:
            interrupted.append(time.monotonic())
            kernel.manager.interrupt_kernel()

    *_, (kind, content) = kernel.run(code, during=interrupt)
    assert interrupted
    assert time.monotonic() - interrupted[0] < 90
    assert (kind, content["ename"]) == ("error", "KeyboardInterrupt")
    assert state(tmp_path / "run") == "unfinished"
    # The notebook goes on in the same kernel.
    *_, (kind, content) = kernel.run(f"{code}\nrun.summary['logZ']")
    assert kind == "execute_result", content
    assert state(tmp_path / "run") == "finished"
    assert float(content["data"]["text/plain"]) == lstmfit.read_run(tmp_path / "run").summary["logZ"]


@pytest.mark.slow
@pytest.mark.ci
def test_an_interrupted_campaign_continues_and_its_workers_are_silent(kernel, tmp_path):
    """The interrupt also reaches the worker processes, whose tracebacks would be a flood."""
    code = "made = lstmfit.simulate('set.h5', 3000, n_val=10, n_test=10, jobs=2)"
    interrupted = []

    def interrupt(kind, content):
        if "display" in kind and not interrupted:
            interrupted.append(True)
            kernel.manager.interrupt_kernel()

    messages = kernel.run(code, during=interrupt)
    assert messages[-1][1]["ename"] == "KeyboardInterrupt"
    assert not [content for kind, content in messages if kind == "stream"]
    assert list((tmp_path / "set.h5.parts").glob("*.npz"))
    bars = [content["data"]["text/plain"] for kind, content in kernel.run(code) if "display" in kind]
    assert not bars[0].endswith(" 1 of 3,020 signals")
    assert bars[-1].endswith("3,020 of 3,020 signals")


@pytest.mark.slow
@pytest.mark.ci
def test_a_folder_that_cannot_be_written_names_the_remedy(kernel):
    """The default output folder lies beside the notebook, which may be in a read-only place."""
    run = json.dumps(tiny_run())
    # Not even root can make files here.
    assert not kernel.run("%cd -q /sys")
    for call in (f"lstmfit.fit({run})", f"lstmfit.fit({run}, 'deep/er')", "lstmfit.simulate('set.h5', 4, jobs=1)"):
        *_, (kind, content) = kernel.run(call)
        assert kind == "error"
        assert content["ename"] == "InputError"
        assert "cannot write" in content["evalue"]
        assert "choose another folder" in content["evalue"]


def test_names_are_escaped_in_html(tmp_path):
    """The folder and the parameters are text of the user."""
    folder = tmp_path / "<img src=x onerror=alert(1)>&"
    html = lstmfit.fit(tiny_run(), folder, jobs=1)._repr_html_()
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;" in html


@pytest.mark.slow
@pytest.mark.ci
def test_a_figure_is_shown_although_nothing_else_has_used_matplotlib(kernel):
    """Figures are made without pyplot, which tells a notebook how to show them."""
    # A figure without axes is never shown.
    code = "figure = new_figure()\n_ = figure.subplots()\nfigure"
    (figure,) = kernel.output_of(f"from lstmfit.analysis.plots import new_figure\n{code}")
    assert "image/png" in figure[1]["data"]
    (figure,) = kernel.output_of(f"%matplotlib inline\n%config InlineBackend.figure_formats = ['svg']\n{code}")
    assert {*figure[1]["data"]} == {"text/plain", "image/svg+xml"}
