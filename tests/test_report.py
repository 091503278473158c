"""The report: one file that needs nothing else, with everything in it."""

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from test_cli import lstmfit
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
    chi2, fitted, channels, parameters, ratio = chi_square(write_report(run).read_text())
    assert chi2 == pytest.approx(expected, abs=0.1)
    assert fitted == pytest.approx(sigma, rel=1e-3)
    assert (channels, parameters) == (451, 3)
    assert ratio == pytest.approx(expected / 448, abs=0.01)


def chi_square(text):
    """The report's figures: chi-square, sigma where it is free, channels, parameters, ratio."""
    found = re.search(
        r"chi-square ([\d.]+) by the \w+ noise(?: \(its \w+ fitted: ([\d.]+) mK\))? for (\d+) channels less (\d+) "
        r"fitted parameters = ([\d.]+) a degree of freedom",
        text,
    )
    return [None if figure is None else float(figure) for figure in found.groups()]


def test_marginalised_terms_count_as_fitted_and_the_noise_alone_is_the_measure(run, tmp_path):
    chi2, fitted, channels, parameters, ratio = chi_square(write_report(run, tmp_path / "r.html").read_text())
    assert (fitted, channels, parameters) == (None, 451, 2 + 3)
    assert ratio == pytest.approx(chi2 / 446, abs=0.01)
    assert 0.75 < ratio < 1.25


def test_chi_square_by_a_covariance(tmp_path):
    """Only its normalisation parts -2 ln L from chi-square."""
    rng = np.random.default_rng(3)
    spread = rng.normal(size=(451, 900))
    covariance = 625.0 * (spread @ spread.T / 900 + np.eye(451))
    np.savetxt(tmp_path / "c.txt", covariance)
    noise = {"model": "covariance", "file": str(tmp_path / "c.txt"), "unit": "mK"}
    few = {"polychord": {"nlive": 20, "num_repeats": 2, "seed": 1}}
    content = small_run(likelihood={"global_signal": {"noise": noise}}, sampler=few)
    folder = fit(content, tmp_path / "run", jobs=1)
    run = read_run(folder, load_problem(folder))
    expected = -2.0 * run.samples["logL"].max() - np.linalg.slogdet(2.0 * np.pi * covariance)[1]
    chi2, *_ = chi_square(write_report(run).read_text())
    assert chi2 == pytest.approx(expected, abs=0.2)


def test_long_texts_are_folded(run, tmp_path):
    text = write_report(run, tmp_path / "r.html").read_text()
    folded = re.findall(r"<details><summary>([^<]*)</summary><pre>(.*?)</pre></details>", text, flags=re.DOTALL)
    assert [title for title, _ in folded] == ["BibTeX of what was used", "run.yaml, with every default"]
    assert "@article" in folded[0][1]
    assert "emulator: echo21" in folded[1][1]


@pytest.fixture
def copy(run, tmp_path):
    """A copy of a finished run's folder, to be damaged."""
    return Path(shutil.copytree(run.folder, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("name", "mend"), [("summary.json", "remove it and go on with .* --resume"), ("chain_bias.json", "lstmfit bias")]
)
@pytest.mark.parametrize("content", ['{"half": ', "{}", "[]", ""])
def test_damaged_figures_are_one_line(copy, name, mend, content):
    (copy / name).write_text(content)
    with pytest.raises(InputError, match=rf"copy/{name} is damaged \(.*\); .*{mend}"):
        write_report(read_run(copy, load_problem(copy)))


def test_a_damaged_summary_of_a_finished_run_is_one_line(copy):
    (copy / "summary.json").write_text('{"half": ')
    done = lstmfit("fit", copy / "run.yaml", "-o", copy, "--resume")
    assert done.returncode == 2
    assert re.fullmatch(r"lstmfit: \S+/summary.json is damaged \(.*\); remove it and .*", done.stderr.splitlines()[-1])


@pytest.mark.parametrize("damage", ["garbage", "short", "empty", "binary", "nameless"])
def test_damaged_chains_are_one_line(copy, damage):
    chain = copy / "chain_dead-birth.txt"
    whole = chain.read_text()
    if damage == "nameless":
        (copy / "chain.paramnames").unlink()
    else:
        new = {"garbage": f"{whole}garbage\n", "short": whole[:3000], "empty": "", "binary": "\0\xff"}[damage]
        chain.write_text(new, encoding="latin-1")
    with pytest.raises(InputError, match=r"copy: the chain files are damaged \(.+\); repeat the fit with --force"):
        read_run(copy, load_problem(copy))


def test_damaged_data_are_one_line(copy):
    whole = (copy / "data.csv").read_text()
    (copy / "data.csv").write_text(whole[: whole.index(",", 3000)])
    with pytest.raises(InputError, match=r"a damaged data.csv \(data row \d+ is not all numbers\).*--force"):
        load_problem(copy)
    (copy / "data.csv").unlink()
    with pytest.raises(InputError, match=r"copy has no data.csv, .*; repeat the fit with --force"):
        load_problem(copy)
