"""The report: one file that needs nothing else, with everything in it."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from test_driver import small_run

from lstmfit import config as run_file
from lstmfit.analysis.bias import bias_file, measure_bias, write_bias
from lstmfit.analysis.chains import read_run
from lstmfit.analysis.report import bibliography, write_report
from lstmfit.driver import fit, load_problem
from lstmfit.errors import InputError

FOREGROUND = {"model": "log_polynomial", "terms": 3, "reference": 75}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    block = {"noise": {"sigma": 25}, "foreground": FOREGROUND, "emulator_error": True}
    mock = small_run()["data"]["mock"] | {"foreground": {"reference": 75, "coefficients": [2000.0, 10.0, -5.0]}}
    content = small_run(
        data={"mock": mock},
        likelihood={"global_signal": block},
        sampler={"polychord": {"nlive": 30, "num_repeats": 2, "seed": 1}},
    )
    folder = fit(content, tmp_path_factory.mktemp("report") / "run <1>", jobs=1)
    return read_run(folder, load_problem(folder))


class Page(HTMLParser):
    """Headings, sources of images, and tags that would load something."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.images, self.loading, self._in = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self._in = tag
        if tag == "img":
            self.images.append(attributes["src"])
        if tag in ("script", "link", "iframe") or attributes.get("href"):
            self.loading.append(tag)

    def handle_data(self, data):
        if self._in == "h2":
            self.headings.append(data)
            self._in = None


def test_the_report_is_one_file_with_everything(run):
    bias_file(run.folder).unlink(missing_ok=True)
    path = write_report(run)
    assert path == run.folder / "report.html"
    text = path.read_text()
    page = Page(text)
    for heading in ("Evidence", "Parameters", "Emulation bias", "Signal", "Noise and foreground", "References"):
        assert heading in page.headings
    assert not page.loading
    assert len(page.images) == 3
    for image in page.images:
        assert base64.b64decode(image.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert "run &lt;1&gt;" in text
    assert "<1>" not in text
    assert "Not measured" in text
    assert "lstmfit bias" in text
    assert re.search(r"<td>a0</td><td>2000", text) or re.search(r"<td>a0</td><td>199\d", text)
    assert "Mittal2026" in text
    assert "Handley2015b" in text


def test_the_measured_bias_is_in_it(run, tmp_path):
    result = measure_bias(run, n=100)
    write_bias(run.folder, result)
    text = write_report(run, tmp_path / "r.html").read_text()
    assert "k-hat" in text
    assert f"{result['parameters']['fX']['shift']:+.3f}" in text
    assert "Vehtari2024" in text
    assert "Not measured" not in text


def test_references_follow_what_was_used(run):
    config = run_file.load(run.folder / "run.yaml")
    assert "Bowman2018" in bibliography(config, run)
    assert "Planck2018VI" not in bibliography(config, run)
    block = config.likelihood.model_copy(update={})
    block.__pydantic_extra__["planck_tau"] = {}
    assert "Planck2018VI" in bibliography(config.model_copy(update={"likelihood": block}), run)


def test_an_unfinished_run_is_refused(run):
    summary = run.folder / "summary.json"
    content = summary.read_text()
    summary.unlink()
    try:
        with pytest.raises(InputError, match="has not finished"):
            write_report(run)
    finally:
        summary.write_text(content)


def test_the_chi_square_is_that_of_the_best_sample(tmp_path):
    """White Gaussian noise: -2 ln L is chi-square plus the normalisation."""
    noise = {"global_signal": {"noise": {"model": "white", "sigma": "free"}}}
    few = {"polychord": {"nlive": 20, "num_repeats": 2, "seed": 1}}
    folder = fit(small_run(likelihood=noise, sampler=few), tmp_path / "run", jobs=1)
    run = read_run(folder, load_problem(folder))
    best = run.samples.iloc[int(np.argmax(run.samples["logL"].to_numpy()))]
    sigma = float(best["sigma"])
    expected = -2.0 * float(best["logL"]) - 451 * np.log(2.0 * np.pi * sigma**2)
    found = re.search(r"chi-square ([\d.]+) for 451 channels at sigma ([\d.]+) mK", write_report(run).read_text())
    assert float(found[1]) == pytest.approx(expected, abs=0.1)
    assert float(found[2]) == pytest.approx(sigma, rel=1e-3)
    for name, mend in (("summary.json", "fit --resume"), ("chain_bias.json", "lstmfit bias")):
        whole = (folder / name).read_text() if (folder / name).is_file() else None
        (folder / name).write_text('{"half": ')
        with pytest.raises(InputError, match=rf"{name} is damaged .*{mend}"):
            write_report(run)
        (folder / name).write_text(whole) if whole else (folder / name).unlink()
    with (folder / "chain_dead-birth.txt").open("a") as file:
        file.write("garbage\n")
    with pytest.raises(InputError, match=r"the chain files are damaged .*; repeat the fit with --force"):
        read_run(folder, load_problem(folder))
