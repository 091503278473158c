"""The documentation: its links lead somewhere, its code runs, its run files are valid."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import THETA, lstmfit, small_run
from networks import write_sky
from scipy.integrate import quad

import lstmfit as package
from lstmfit import config
from lstmfit.constants import redshift_to_frequency
from lstmfit.likelihoods import LIKELIHOODS, base
from lstmfit.problem import build
from lstmfit.sampling.samplers import SAMPLERS
from lstmfit.yaml_files import parse_yaml

TOP = Path(__file__).parents[1]
PAGES = [
    *(TOP / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "runs/README.md")),
    *sorted((TOP / "docs").rglob("*.md")),
]


def blocks(page, language):
    """Code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (TOP / page).read_text(encoding="utf-8"), re.M | re.S)


def names(paths):
    return [str(path.relative_to(TOP)) for path in paths]


ELSEWHERE = ("README.md", "docs/cookbook.md", "docs/getting_started.md")
"""Their code is run below and in test_cookbook.py."""
WITH_PYTHON = [name for name in names(PAGES) if name not in ELSEWHERE and blocks(name, "python")]
WITH_YAML = [name for name in names(PAGES) if name not in ELSEWHERE[1:] and blocks(name, "yaml")]


def anchors(page):
    """Anchors of the headings of a page, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", names(PAGES))
def test_links_lead_somewhere(name):
    page = TOP / name
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(found), f"{name}: {target} is not a heading of {found.name}"


def test_every_page_is_reached_from_the_readme():
    seen, waiting = set(), [TOP / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        waiting += [(page.parent / target).resolve() for target in targets if "://" not in target]
    assert {page for page in PAGES if page.name != "CHANGELOG.md"} <= seen


@pytest.mark.parametrize("name", WITH_YAML)
def test_run_files_are_valid(name, tmp_path):
    """Whole ones, and blocks of one in the place of those of a small run."""
    for block in blocks(name, "yaml"):
        content = parse_yaml(block, name)
        run = content if "likelihood" in content and "data" in content else small_run() | content
        config.validate(run, name)


def test_the_likelihoods_of_the_documentation_build(rng):
    """docs/likelihoods.md begins with the likelihoods, and ends with the parameters."""
    first, *_, second = (parse_yaml(block, "likelihoods.md") for block in blocks("docs/likelihoods.md", "yaml"))
    likelihoods = {name: block for name, block in first["likelihood"].items() if not name.startswith("my_package")}
    assert len(likelihoods) == len(first["likelihood"]) - 1
    likelihoods["global_signal"]["noise"]["sigma"] = "free"
    mock = {"theta": THETA, "from": "emulator", "noise": 25, "seed": 2}
    problem = build(config.load({"emulator": "echo21", "data": {"mock": mock}, "likelihood": likelihoods} | second))
    assert "log10_fLy" in problem.names
    assert problem.derived_names[-2:] == ("fLy", "ratio")
    assert np.isfinite(problem.loglikelihood(problem.prior.sample(1, rng)[0])[0])


def test_the_foregrounds_of_the_documentation_build(tmp_path, rng):
    """The blocks of docs/likelihoods.md between the first and the last, with files on the grid of echo21."""
    grid = redshift_to_frequency(package.Emulator.load("echo21").redshifts)
    weights = np.stack([50.0 + i * grid / 100.0 for i in range(3)], axis=1)
    np.savez(tmp_path / "K.npz", K=weights, frequencies=grid)
    spectra = np.exp(rng.normal(-2.5, 0.05, (60, 3))[..., None] * np.log(grid / 230.0)) * weights.T
    np.savez(tmp_path / "spectra.npz", spectra=spectra.sum(axis=1), frequencies=grid)
    done = lstmfit("modes", "spectra.npz", "-o", "modes.h5", "-n", 8, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    write_sky(tmp_path / "sky.h5", rng, np.linspace(5.0, 50.0, 45))
    shown = [parse_yaml(block, "likelihoods.md") for block in blocks("docs/likelihoods.md", "yaml")][1:-1]
    models = [block["likelihood"]["global_signal"]["foreground"]["model"] for block in shown]
    assert models == ["log10_polynomial", "basis", "regions", "regions", "emulator"]
    for i, block in enumerate(shown):
        run = small_run() | block
        run["data"]["mock"]["from"] = "emulator"
        (tmp_path / f"{i}.yaml").write_text(yaml.safe_dump(run))
        problem = build(config.load(tmp_path / f"{i}.yaml"))
        assert np.isfinite(problem.loglikelihood(problem.prior.sample(1, rng)[0])[0])
        assert problem.spectra["global_signal"].n_marginalised == (8 if models[i] == "basis" else 0)
        assert ("beta_2" in problem.names) == (models[i] == "regions")


CHECKS = {
    "docs/python.md": """
assert run.truth() == {"fX": -1.0, "Tmin_vir": 4.0}
assert compare(a.samples, b.samples, names)["parameters"]["fX"]["ks"] == 0.0
assert result["verdict"]["trusted"]
assert theta.shape == (5, 2) and signals.shape == (100, 451) and history.signal.shape == (451,)
""",
    "docs/data.md": "assert spectrum.frequency.tolist() == [60, 61] and spectrum.temperature.tolist() == [1700, 1600]",
    "docs/frameworks.md": "assert tuple(priors) == likelihood.problem.names",
    "docs/emulator.md": "assert signal.shape == (451,) and emulator.jacobian(batch[0]).shape == (451, 7)",
}


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_python_runs_as_a_script(name, tmp_path):
    """Every block of a page, one after the other."""
    shown = blocks(name, "python")
    if name == "docs/frameworks.md":
        # The blocks of "Any other sampler" are run by tests/interfaces/test_any_sampler.py.
        shown = shown[:1]
    script = "\n".join([*shown, CHECKS[name]])
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert name != "docs/python.md" or "the emulator is accurate enough for these data" in done.stdout


@pytest.mark.slow
@pytest.mark.ci
def test_the_readme_runs(tmp_path):
    """Its run file, its commands, its Python."""
    (run,) = blocks("README.md", "yaml")
    (script,) = blocks("README.md", "python")
    commands = [line.split("#")[0].split() for line in blocks("README.md", "bash")[0].splitlines()]
    (tmp_path / "run.yaml").write_text(run)
    assert len(commands) >= 3
    for program, *arguments in commands:
        assert program == "lstmfit"
        done = lstmfit(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    (tmp_path / "script.py").write_text(script + "\nassert signals.shape == (100, 451) and run.summary['logZ'] < 0\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def diffs():
    """Files of the developer guide's diffs: (path, new content) of the new ones; and the diffs themselves."""
    texts = blocks("docs/developer.md", "diff")
    parts = re.findall(r"^--- (\S+)\n\+\+\+ b/(\S+)\n((?:[@+ -].*\n)+?)(?=--- |\Z)", "".join(texts), re.M)
    lines = {path: [line[1:] for line in body.splitlines()[1:]] for old, path, body in parts if old == "/dev/null"}
    return {path: "\n".join(content) + "\n" for path, content in lines.items()}, texts


def test_the_diffs_of_the_developer_guide_apply():
    for text in diffs()[1]:
        done = subprocess.run(
            ["git", "apply", "--check", "-"], input=text, cwd=TOP, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.fixture
def guide(tmp_path, monkeypatch):
    """The developer guide's new modules, importable by their file's name."""
    new, _ = diffs()
    for path, content in new.items():
        (tmp_path / Path(path).name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    return new


def test_the_likelihood_of_the_developer_guide_works(guide, monkeypatch):
    defaults = yaml.safe_load(guide["likelihoods/trough_depth.yaml"])
    monkeypatch.setitem(LIKELIHOODS, "trough_depth", "trough_depth:TroughDepth")
    original = base.read_defaults
    monkeypatch.setattr(base, "read_defaults", lambda name: defaults if name == "trough_depth" else original(name))
    run = small_run()
    run["likelihood"]["trough_depth"] = {"mock": True}
    run["data"]["mock"]["from"] = "emulator"
    run["params"] = run["params"] | {"gain": 1.0}
    problem = build(config.load(run))
    truth = np.array([THETA[name] for name in problem.names])
    _, derived = problem.loglikelihood(truth)
    column = problem.derived_names.index("loglike_trough_depth")
    assert derived[column] == pytest.approx(-np.log(20 * np.sqrt(2 * np.pi)))


def test_the_sampler_of_the_developer_guide_works(guide, monkeypatch, tmp_path):
    monkeypatch.setitem(SAMPLERS, "prior_draws", "prior_draws:PriorDraws")
    fixed = {name: value for name, value in THETA.items() if name != "Tmin_vir"}
    run = small_run(params=fixed, sampler={"prior_draws": {"n_live": 4000}})
    run["data"]["mock"]["from"] = "emulator"
    done = package.fit(run, tmp_path / "run")
    problem = done.problem
    best = problem.loglikelihood(np.array([THETA["Tmin_vir"]]))[0]

    def likelihood(u):
        return np.exp(problem.loglikelihood(problem.prior_transform(np.array([u])))[0] - best)

    u = (np.log(THETA["Tmin_vir"]) - np.log(problem.prior.distributions["Tmin_vir"].support[0])) / np.diff(
        np.log(problem.prior.distributions["Tmin_vir"].support)
    )[0]
    expected = best + np.log(quad(likelihood, 0, 1, points=[u], limit=200)[0])
    assert abs(done.summary["logZ"] - expected) < 4 * done.summary["logZ_err"]
    assert package.fit(run, tmp_path / "run", resume=True).summary == done.summary
