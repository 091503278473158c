"""The report: one file that needs nothing else, with everything in it."""

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
from helpers import lstmfit, small_run

from lstmfit import config as run_file
from lstmfit.analysis.bias import bias_file, measure_bias, write_bias
from lstmfit.analysis.chains import read_run, read_summary
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
    return read_run(folder)


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


def test_means_have_their_errors_where_they_are_known(run, tmp_path):
    """Summaries of older versions have none."""
    figures = read_summary(run.folder)["parameters"]["fX"]
    assert figures["mean_err"] < figures["std"]
    with_error = f"<td>{figures['mean']:.4g} ± {figures['mean_err']:.1g}</td>"
    assert with_error in write_report(run, tmp_path / "new.html").read_text()
    copy = shutil.copytree(run.folder, tmp_path / "old")
    content = json.loads((copy / "summary.json").read_text())
    for p in content["parameters"].values():
        del p["mean_err"]
    (copy / "summary.json").write_text(json.dumps(content))
    text = write_report(read_run(copy)).read_text()
    assert f"<td>{figures['mean']:.4g}</td>" in text
    assert with_error not in text


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
    likelihood = config.likelihood | {"planck_tau": {}}
    assert "Planck2018VI" in bibliography(config.model_copy(update={"likelihood": likelihood}), run)


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
    run = read_run(folder)
    best = run.samples.iloc[int(np.argmax(run.samples["logL"].to_numpy()))]
    sigma = float(best["sigma"])
    expected = -2.0 * float(best["logL"]) - 451 * np.log(2.0 * np.pi * sigma**2)
    chi2, dof, fitted = chi_square(write_report(run).read_text())
    assert chi2 == pytest.approx(expected, abs=0.1)
    assert fitted == pytest.approx(sigma, rel=1e-3)
    assert 448.5 < dof < 450.5


def chi_square(text):
    """The report's figures: chi-square, degrees of freedom, sigma where it is free."""
    found = re.search(
        r"<td>([\d.]+) for ([\d.]+) degrees of freedom(?:, for a fitted noise of ([\d.]+) mK)?</td>", text
    )
    return [None if figure is None else float(figure) for figure in found.groups()]


def test_marginalised_terms_count_as_fitted_and_the_noise_alone_is_the_measure(run, tmp_path):
    text = write_report(run, tmp_path / "r.html").read_text()
    chi2, dof, fitted = chi_square(text)
    assert fitted is None
    assert 445.5 < dof < 447.5
    assert 0.75 < chi2 / dof < 1.25
    assert "residuals are noise: chi-square" in text
    for test in ("posterior prediction", "correlation of the residuals", "runs of one sign", "largest outlier"):
        assert re.search(rf"<td>{test}[^<]*</td><td>[^<]*</td><td>[01]\.\d+</td>", text), test


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
    run = read_run(folder)
    expected = -2.0 * run.samples["logL"].max() - np.linalg.slogdet(2.0 * np.pi * covariance)[1]
    chi2, *_ = chi_square(write_report(run).read_text())
    assert chi2 == pytest.approx(expected, abs=0.2)


def test_long_texts_are_folded(run, tmp_path):
    text = write_report(run, tmp_path / "r.html").read_text()
    folded = re.findall(r"<details><summary>([^<]*)</summary><pre>(.*?)</pre></details>", text, flags=re.DOTALL)
    assert [title for title, _ in folded] == ["BibTeX entries", "run.yaml, with all defaults"]
    assert "@article" in folded[0][1]
    assert "emulator: echo21" in folded[1][1]


@pytest.fixture
def copy(run, tmp_path):
    """A copy of a finished run's folder, to be damaged."""
    return Path(shutil.copytree(run.folder, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("name", "mend"), [("summary.json", "remove it and run .* --resume"), ("chain_bias.json", "lstmfit bias")]
)
@pytest.mark.parametrize("content", ['{"half": ', "{}", "[]", ""])
def test_damaged_figures_are_one_line(copy, name, mend, content):
    (copy / name).write_text(content)
    with pytest.raises(InputError, match=rf"copy/{name} is damaged \(.*\); .*{mend}"):
        write_report(read_run(copy))


def test_a_damaged_summary_of_a_finished_run_is_one_line(copy):
    (copy / "summary.json").write_text('{"half": ')
    done = lstmfit("fit", copy / "run.yaml", "-o", copy, "--resume")
    assert done.returncode == 2
    assert re.fullmatch(r"lstmfit: \S+/summary.json is damaged \(.*\); remove it and .*", done.stderr.splitlines()[-1])


def unsealed(folder):
    """A folder as version 0.1 left it, without checksums."""
    state = folder / "chain.state.json"
    content = json.loads(state.read_text())
    content.pop("sha256")
    state.write_text(json.dumps(content))


@pytest.mark.parametrize("damage", ["garbage", "short", "empty", "binary", "nameless"])
def test_damaged_chains_are_one_line(copy, damage):
    unsealed(copy)
    chain = copy / "chain_dead-birth.txt"
    whole = chain.read_text()
    if damage == "nameless":
        (copy / "chain.paramnames").unlink()
    else:
        new = {"garbage": f"{whole}garbage\n", "short": whole[:3000], "empty": "", "binary": "\0\xff"}[damage]
        chain.write_text(new, encoding="latin-1")
    with pytest.raises(InputError, match=r"copy: the chain files are damaged \(.+\); repeat the fit with --force"):
        read_run(copy)


def test_damaged_data_are_one_line(copy):
    unsealed(copy)
    whole = (copy / "data.csv").read_text()
    (copy / "data.csv").write_text(whole[: whole.index(",", 3000)])
    with pytest.raises(InputError, match=r"a damaged data.csv \(data row \d+ has values that .*\).*--force"):
        load_problem(copy)
    (copy / "data.csv").unlink()
    with pytest.raises(InputError, match=r"copy has no data.csv, .*; repeat the fit with --force"):
        load_problem(copy)


# ---------------------------------------------------------------- a folder from a stranger

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&"


def test_nothing_of_the_folder_reaches_the_page_unescaped(copy):
    write_bias(copy, measure_bias(read_run(copy), n=50))
    for name in ("summary.json", "chain_bias.json"):
        content = json.loads((copy / name).read_text())
        content["sampler" if name == "summary.json" else "truth"] = EVIL
        content["parameters"][EVIL] = content["parameters"]["fX"]
        if name == "chain_bias.json":
            content["failures"] = {"n": 1, "first": EVIL}
            content["verdict"]["text"] = EVIL
        (copy / name).write_text(json.dumps(content))
    text = write_report(read_run(copy)).read_text()
    assert "<script" not in text
    assert "<img src=x" not in text
    assert text.count("&lt;script&gt;") >= 4
    page = Page(text)
    assert not page.loading
    assert all(source.startswith("data:image/png;base64,") for source in page.images)


def test_the_page_allows_nothing_but_its_own_style(run, tmp_path):
    text = write_report(run, tmp_path / "r.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    style = re.search(r"<style>(.*?)</style>", text, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy.replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src" not in policy
    assert 'style="' not in text


def test_pictures_are_drawn_not_copied(copy):
    """A link in the folder could put any file of the reader's into the page."""
    secret = copy.parent / "secret"
    secret.write_bytes(b"\x89PNG private key")
    for name in ("corner", "signal"):
        (copy / f"{name}.png").unlink()
        (copy / f"{name}.png").symlink_to(secret)
    text = write_report(read_run(copy)).read_text()
    assert base64.b64encode(secret.read_bytes()).decode()[:16] not in text
    assert len(Page(text).images) == 3
    assert secret.read_bytes() == b"\x89PNG private key"


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("summary.json", ("n_live",), "<b>many</b>"),
        ("summary.json", ("n_live",), True),
        ("summary.json", ("n_live",), -1),
        ("summary.json", ("logZ",), None),
        ("summary.json", ("logZ",), float("nan")),
        ("summary.json", ("wall_s",), [1]),
        ("summary.json", ("wall_s",), 10**400),
        ("summary.json", ("sampler",), {"a": 1}),
        ("summary.json", ("insertion_p",), "small"),
        ("summary.json", ("fit",), "good"),
        ("summary.json", ("fit", "p_value"), "small"),
        ("summary.json", ("parameters",), []),
        ("summary.json", ("parameters",), {}),
        ("summary.json", ("parameters", "fX"), None),
        ("summary.json", ("parameters", "fX", "mean"), "0.1"),
        ("chain_bias.json", ("verdict",), "good"),
        ("chain_bias.json", ("verdict", "trusted"), "yes"),
        ("chain_bias.json", ("parameters", "fX"), {}),
        ("chain_bias.json", ("parameters", "fX", "shift"), None),
        ("chain_bias.json", ("failures",), 3),
        ("chain_bias.json", ("khat_limit",), None),
        ("chain_bias.json", ("truth",), 21),
    ],
)
def test_figures_of_the_wrong_type_are_one_line(copy, name, place, value):
    write_bias(copy, BIAS)
    content = json.loads((copy / name).read_text())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (copy / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"copy/{name} is damaged \(.*{place[-1]}.*\); ") as found:
        write_report(read_run(copy))
    assert len(str(found.value)) < 400


BIAS = {
    "parameters": {
        name: {"bias": 0.1, "bias_err": 0.01, "shift": 0.1, "std_ratio": 1.0, "true_bias": None}
        for name in ("fX", "Tmin_vir")
    },
    "truth": "echo21", "D_KL": 0.1, "D_KL_err": 0.01, "dlogZ": 0.0, "dlogZ_err": 0.1, "khat": 0.1, "khat_limit": 0.6,
    "ess": 300.0, "efficiency": 0.9, "n": 500, "failures": {"n": 0, "first": None}, "signal_rms_mK": None,
    "verdict": {"trusted": True, "text": "good"},
}  # fmt: skip


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b'{"parameters": {}, "truth": "x", "verdict": {}}'])
def test_other_damage_is_one_line(run, copy, content):
    for name in ("summary.json", "chain_bias.json"):
        (copy / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"copy/{name} is damaged") as found:
            write_report(read_run(copy))
        assert len(str(found.value)) < 400
        shutil.copy(run.folder / "summary.json", copy)


def test_a_bias_that_version_0_1_trusted_is_judged_again(copy):
    write_bias(copy, BIAS | {"ess": 1.0, "khat": 0.0, "efficiency": 0.02})
    text = write_report(read_run(copy)).read_text()
    assert re.search(r'class="verdict bad">effective sample size 1.0 of 500, below 10', text)
    (copy / "chain_bias.json").unlink()
    write_bias(copy, BIAS)
    text = write_report(read_run(copy)).read_text()
    assert re.search(r'class="verdict">the emulator has a noticeable effect on this fit', text)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("name", ["Störung 21 cm Ω", b"not \xff text"])
def test_a_folder_with_any_name_has_a_report(copy, locale, name):
    folder = copy.parent / os.fsdecode(name)
    copy.rename(folder)
    env = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = lstmfit("report", folder, env=env, errors="surrogateescape")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "report.html").is_file()


def test_a_picture_that_fails_is_a_warning(run, tmp_path, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("lstmfit.analysis.plots.corner", broken)
    text = write_report(run, tmp_path / "r.html").read_text()
    assert "This plot could not be drawn" in text
    assert "corner could not be drawn (RuntimeError: no fonts)" in caplog.text
    assert len(Page(text).images) == 2
