"""The page of an emulator as a file: what is in it, and what is refused. How it works in a browser: test_browser.py."""

import base64
import hashlib
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers import lstmfit, small_run, tiny_run
from networks import PARAMETERS, random_network

from lstmfit import Emulator
from lstmfit.analysis.chains import read_run
from lstmfit.analysis.signal_posterior import draw_signals
from lstmfit.driver import fit
from lstmfit.emulator.emulator import shipped
from lstmfit.errors import InputError
from lstmfit.explorer import write_page
from lstmfit.run_folder import check_target, clear

GLOBALEMU = Path(__file__).parents[1] / "emulator" / "formats" / "data" / "globalemu_ares"
FOREIGN = f"{{file: {GLOBALEMU}, parameters: ares}}"


class Page(HTMLParser):
    """Elements of a page, the content of its scripts and styles, and attributes that would load or run something."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.scripts, self.styles, self.loading, self.policy = [], [], [], [], ""
        self.feed(path.read_text())
        (self.data,) = [json.loads(text) for kind, text in self.scripts if kind == "application/json"]

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append(tag)
        self.loading += [name for name in attributes if name in ("src", "href", "style") or name.startswith("on")]
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        if tag == "script":
            self.scripts.append((attributes.get("type"), ""))

    def handle_data(self, data):
        if self.elements[-1:] == ["script"] and self.scripts[-1][1] == "":
            self.scripts[-1] = self.scripts[-1][0], data
        if self.elements[-1:] == ["style"]:
            self.styles.append(data)
            self.elements.append("")


def decoded(array):
    return np.frombuffer(base64.b64decode(array["base64"]), dtype=f"<{array['type']}")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(fit(tiny_run(), tmp_path_factory.mktemp("explorer") / "run", jobs=1))


@pytest.mark.parametrize("name", shipped())
def test_the_page_contains_the_emulator(name, tmp_path):
    """To the last bit, with its matrices in half precision."""
    emulator = Emulator.load(name)
    page = Page(write_page(tmp_path / "page.html", emulator))
    content = page.data["emulator"]
    assert set(content["weights"]) == set(emulator.architecture.shapes())
    for key, array in content["weights"].items():
        assert np.array_equal(decoded(array).astype(np.float32), emulator.used_weights[key].ravel())
    halves = {key for key, array in content["weights"].items() if array["type"] == "f2"}
    sizes = {key: np.prod(shape) for key, shape in emulator.architecture.shapes().items()}
    assert {key for key, size in sizes.items() if "bias" not in key and size > 1000} <= halves
    assert np.array_equal(decoded(content["scaling"]["offset"]), emulator.scaling.offset.ravel())
    assert [p["name"] for p in content["parameters"]] == list(emulator.names)
    assert content["redshifts"] == emulator.redshifts.tolist()
    assert page.data["run"] is None


def test_the_policy_allows_this_script_and_this_style_and_no_network(tmp_path):
    page = Page(write_page(tmp_path / "page.html", Emulator.load("21cmgem")))
    assert page.loading == []
    (script,) = (text for kind, text in page.scripts if kind is None)
    (style,) = page.styles
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    assert page.policy.split("; ") == [
        "default-src 'none'", f"script-src 'sha256-{hashes[0]}'", f"style-src 'sha256-{hashes[1]}'",
        "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    assert not re.search(r"\bhttps?://(?!www\.w3\.org/2000/svg)", script + style)


HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'><!--<script>&amp;"


def hostile_emulator(rng, path):
    """An emulator with text of all kinds that tries to break out of the page."""
    architecture, scaling, weights = random_network(rng)
    fields = ("name", "min", "max", "log")
    parameters = [
        type(p)(**{key: getattr(p, key) for key in fields}, unit=HOSTILE, latex=HOSTILE) for p in PARAMETERS
    ]
    record = {"simulator": HOSTILE}
    Emulator(architecture, scaling, weights, np.linspace(5.0, 50.0, 45), parameters, record=record).save(path)
    return Emulator.load(path)


def test_text_from_files_does_not_break_out(rng, tmp_path):
    emulator = hostile_emulator(rng, tmp_path / "<script>&<!--.h5")
    page = Page(write_page(tmp_path / "page.html", emulator))
    plain = Page(write_page(tmp_path / "plain.html", Emulator.load("21cmgem")))
    assert page.elements == plain.elements
    assert page.data["emulator"]["parameters"][0]["latex"] == HOSTILE
    assert page.data["emulator"]["name"] == "<script>&<!--"
    assert "window.broken" not in page.scripts[1][1]


def test_any_file_name_has_a_page(tmp_path):
    file = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.h5")
    shutil.copy(shipped()["21cmgem"], file)
    page = Page(write_page(tmp_path / "page.html", Emulator.load(file)))
    assert page.data["emulator"]["name"] == "\\udcff"


def test_the_page_of_a_run_has_what_signal_png_shows(run, tmp_path):
    content = Page(write_page(tmp_path / "page.html", Emulator.load("echo21"), run)).data["run"]
    draws = draw_signals(run, np.random.default_rng(0))
    for band, percent in zip(content["bands"], (95, 68), strict=True):
        assert band["percent"] == percent
        expected = np.percentile(draws.curves, (50 - percent / 2, 50 + percent / 2), axis=0)
        np.testing.assert_allclose(band["limits"], expected, atol=1e-9)
    np.testing.assert_allclose(content["median"], np.median(draws.curves, axis=0), atol=1e-9)
    (spectrum,) = content["spectra"]
    data = run.problem.spectra["global_signal"].spectrum
    assert spectrum["frequency"] == data.frequency.tolist()
    assert spectrum["temperature"] == data.temperature.tolist()
    assert spectrum["truth"] == data.truth.tolist()
    assert spectrum["foreground"] is False
    names = Emulator.load("echo21").names
    best = run.samples.iloc[int(np.argmax(run.samples["logL"]))]
    for name, value, (low, high) in zip(names, content["best"], content["intervals"], strict=True):
        if name in run.problem.names:
            assert value == best[name].item()
            assert low == pytest.approx(np.percentile(draws.theta[:, run.problem.names.index(name)], 16))
            assert low < high
        else:
            assert value == low == high == small_run()["params"][name]


def test_the_command_writes_into_the_run_folder(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "copy")
    done = lstmfit("explore", "--run", folder)
    assert done.returncode == 0, done.stderr
    page = folder / "explore.html"
    assert str(page) in done.stdout
    assert Page(page).data["run"]["name"] == "copy"
    # It belongs to the run: it may be written again, and a new fit with --force removes it.
    check_target(page)
    clear(folder)
    assert not page.exists()


def test_the_command_needs_nothing(tmp_path):
    done = lstmfit("explore", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Page(tmp_path / "echo21.html").data["emulator"]["name"] == "echo21"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--run", "."), r"is not a run folder: it has no run.yaml; give the output folder of"),
        (("--run", "nowhere"), r"nowhere is not a run folder"),
        (("echo22",), r"'echo22' is not a shipped emulator or a file; did you mean 'echo21'"),
        (("missing.h5",), r"missing.h5"),
        ((FOREIGN,), r"another group, which cannot run in a page; distil it first: lstmfit simulate --simulator"),
        (("echo21", "-o", "page.txt"), r"cannot write page.txt: the page is one HTML file; give a name that ends in"),
        (("echo21", "-o", "page"), r"give a name that ends in .html"),
        (("echo21", "-o", "nowhere/page.html"), r"there is no folder nowhere; create it"),
    ],
)
def test_bad_input_is_one_line(arguments, match, tmp_path):
    done = lstmfit("explore", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(match, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_another_emulator_is_refused(run, tmp_path):
    with pytest.raises(InputError, match=r"fitted with emulator echo21 .*, not with 21cmgem .*; leave the emulator"):
        write_page(tmp_path / "page.html", Emulator.load("21cmgem"), run)
    done = lstmfit("explore", "21cmgem", "--run", run.folder, "-o", tmp_path / "page.html")
    assert done.returncode == 2
    assert "was fitted with emulator echo21" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_an_emulator_is_refused(tmp_path):
    content = tiny_run(signal="flattened_gaussian", params={"w": 20, "tau": 7, "nu_0": 78})
    del content["emulator"]
    content["data"]["mock"] |= {"theta": {"A": 500, "nu_0": 78, "w": 20, "tau": 7}, "from": "emulator"}
    run = read_run(fit(content, tmp_path / "run", jobs=1))
    match = r"is a fit without an emulator \(flattened_gaussian\), .* give the folder"
    with pytest.raises(InputError, match=match):
        write_page(tmp_path / "page.html", Emulator.load("echo21"), run)
    done = lstmfit("explore", "--run", run.folder, "-o", tmp_path / "page.html")
    assert done.returncode == 2
    assert re.search(match, done.stderr)
    assert not (tmp_path / "page.html").exists()
