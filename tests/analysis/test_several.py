"""Any number of chains: evidences, pairs, nothing in common; foreign and damaged files in one line."""

import json
import shutil

import numpy as np
import pytest
import yaml
from anesthetic import MCMCSamples, NestedSamples
from chain_files import draws, polychord_run, write_names
from helpers import lstmfit, small_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from lstmfit.analysis.chains import evidence, read_samples, read_summary
from lstmfit.analysis.compare import NothingInCommon, align, compare
from lstmfit.analysis.foreign_chains import Chain, read_chain
from lstmfit.analysis.plots import corner_of_several
from lstmfit.analysis.several import compare_chains
from lstmfit.driver import fit
from lstmfit.errors import InputError
from lstmfit.run_folder import SEALED


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    few = {"polychord": {"nlive": 30, "num_repeats": 2, "seed": 1}}
    return fit(small_run(sampler=few), tmp_path_factory.mktemp("several") / "run", jobs=1)


def chain(label, columns, x, logz=None):
    samples = MCMCSamples(data=x, columns=columns)
    if logz is not None:
        samples.attrs["evidence"] = logz, 0.1
    return Chain(label, samples)


def test_two_chains_are_compared_as_before(rng, tmp_path):
    chains = [read_chain(polychord_run(rng, tmp_path, name)) for name in ("one", "two")]
    got = compare_chains(chains)
    a, b, names = align(*chains)
    assert got.result == compare(a.samples, b.samples, names)
    assert got.names == names


def test_evidences_of_three_and_each_pair(rng):
    x = draws(rng, 400)
    chains = [
        chain("A", ["x", "y"], x, -10.0),
        chain("B", ["x", "y"], x + 1, -11.0),
        chain("C", ["x", "z"], x, -14.0),
        chain("D", ["y", "w"], x),
    ]
    got = compare_chains(chains)
    assert [r["label"] for r in got.result["runs"]] == list("ABCD")
    assert [r["logZ"] for r in got.result["runs"]] == [-10.0, -11.0, -14.0, None]
    assert [r["dlogZ"] for r in got.result["runs"]] == [0.0, -1.0, -4.0, None]
    probabilities = [r["probability"] for r in got.result["runs"]]
    np.testing.assert_allclose(probabilities[:3], softmax([-10.0, -11.0, -14.0]))
    assert probabilities[3] is None
    pairs = {(p["a"], p["b"]): list(p["parameters"]) for p in got.result["pairs"][:3]}
    assert pairs == {("A", "B"): ["x", "y"], ("A", "C"): ["x"], ("A", "D"): ["y"]}
    assert got.names == []
    json.dumps(got.result)


def test_nothing_in_common_leaves_the_evidences(rng):
    a, b = chain("A", ["p"], draws(rng, 90)[:, :1], -3.0), chain("B", ["q"], draws(rng, 90)[:, :1], -5.0)
    got = compare_chains([a, b]).result
    assert got["parameters"] == {}
    assert got["dlogZ"] == -2.0
    assert got["notes"][0] == "the chains share no parameter, so only the evidences are compared"
    assert (got["only_a"], got["only_b"], got["D_KL"], got["mean_bias"]) == (["p"], ["q"], None, None)
    assert got["ess_a"] == pytest.approx(90)
    with pytest.raises(NothingInCommon, match="share no parameter"):
        compare_chains([a, chain("C", ["q"], draws(rng, 90)[:, :1])])


def test_names_of_log10_over_several_chains(rng):
    x = np.exp(draws(rng, 300))
    chains = [chain("A", ["x", "y"], x), chain("B", ["x", "y"], x), chain("C", ["y", "only"], x)]
    got = compare_chains(chains, ["x", "only"])
    assert got.chains[0].log10 == {"x"}
    assert got.chains[2].log10 == {"only"}
    with pytest.raises(InputError, match="no parameter 'X' in any chain; did you mean 'x'"):
        compare_chains(chains, ["X"])


def test_a_logarithm_that_cannot_be_linear_needs_no_log10(rng):
    """Advice to take log10 of negative values would fail."""
    x = draws(rng, 200)
    ours = Chain("ours", MCMCSamples(data=x, columns=["x", "y"]), frozenset(["x"]))
    foreign = chain("foreign", ["x", "y"], x)
    assert align(ours, foreign)[2] == ["x", "y"]
    with pytest.raises(InputError, match="add --log10 x if it is linear in the other"):
        align(ours, chain("foreign", ["x", "y"], np.exp(x)))


@pytest.mark.slow
@pytest.mark.ci
def test_the_command(rng, tmp_path, run):
    roots = [polychord_run(rng, tmp_path, name) for name in ("one", "two")]
    other = polychord_run(rng, tmp_path, "three", names=["p", "q"])
    done = lstmfit("compare", *roots, other, "--json", tmp_path / "c.json")
    assert done.returncode == 0, done.stderr
    got = json.loads((tmp_path / "c.json").read_text())
    assert set(got) == {"runs", "pairs"}
    assert len(got["pairs"]) == 3
    for what in ("logZ", "logZ - best", "probability", "D_KL(B || A)", "share no parameter"):
        assert what in done.stdout
    done = lstmfit("compare", *roots, roots[0], "--plot", tmp_path / "c.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    two = lstmfit("compare", roots[0], other)
    assert two.returncode == 0, two.stderr
    assert "logZ of B minus logZ of A" in two.stdout
    bad = lstmfit("compare", roots[0], other, "--plot", tmp_path / "d.png")
    assert (bad.returncode, len(bad.stderr.strip().splitlines())) == (2, 1)
    assert not (tmp_path / "d.png").exists()
    one = lstmfit("compare", run)
    assert (one.returncode, one.stderr.count("\n")) == (2, 1)
    assert "two or more chains" in one.stderr


def test_the_picture_of_nothing_is_refused(rng, tmp_path):
    with pytest.raises(InputError, match="share no parameter, so there is nothing to plot"):
        corner_of_several([chain("A", ["p"], draws(rng, 90)[:, :1])], [], tmp_path / "c.png")


def test_the_evidence_is_that_of_the_whole_prior(rng, tmp_path):
    root = polychord_run(rng, tmp_path, "one")
    before = evidence(read_samples(root), 100)
    root.with_name("test.state.json").write_text(json.dumps({"prior_fraction": 0.5}))
    after = evidence(read_samples(root), 100)
    assert after[0] == pytest.approx(before[0] + np.log(0.5))


def test_our_own_runs_evidence_is_the_summarys(run):
    samples = read_samples(run / "chain")
    assert isinstance(samples, NestedSamples)
    summary = read_summary(run)
    assert abs(evidence(samples, 1000)[0] - summary["logZ"]) < 0.05


# ---------------------------------------------------------------- damaged files


@pytest.mark.parametrize("sealed", [True, False])
def test_a_run_without_its_names_is_told_so(run, tmp_path, sealed):
    """Not to take log10 of what has no name."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    if not sealed:
        state = json.loads((folder / "chain.state.json").read_text())
        state.pop("sha256")
        (folder / "chain.state.json").write_text(json.dumps(state))
    (folder / "chain.paramnames").unlink()
    with pytest.raises(InputError, match=r"chain.paramnames is missing from this run; restore it") as found:
        read_chain(folder)
    assert "--log10" not in str(found.value)


def test_a_changed_run_is_refused(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    assert "chain_dead-birth.txt" in SEALED
    text = (folder / "chain_dead-birth.txt").read_text()
    (folder / "chain_dead-birth.txt").write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="has changed since the fit"):
        read_chain(folder)


@pytest.mark.parametrize("content", [b"\xff\xfex\x00", b"x\xe9\ny\n"])
def test_names_that_are_no_text_are_one_line(rng, tmp_path, content):
    root = polychord_run(rng, tmp_path, "one")
    root.with_name("test.paramnames").write_bytes(content)
    with pytest.raises(InputError, match=r"test\.paramnames is not UTF-8 text"):
        read_chain(root)


def test_more_names_than_columns(rng, tmp_path):
    root = polychord_run(rng, tmp_path, "one")
    write_names(root, [f"p{i}" for i in range(9)])
    with pytest.raises(InputError) as found:
        read_chain(root)
    assert len(str(found.value)) < 400


def test_long_names_of_chains_that_cannot_be_read_stay_short(tmp_path):
    folder = tmp_path / ("a" * 200) / ("b" * 200)
    folder.mkdir(parents=True)
    write_names(folder / ("c" * 100))
    with pytest.raises(InputError, match=r"looked for .*dead-birth\.txt \(PolyChord\).*\(UltraNest\) in ") as found:
        read_chain(folder / ("c" * 100))
    assert len(str(found.value)) < 400
    for i in range(40):
        np.savetxt(folder / f"{'d' * 90}{i}_1.txt", np.ones((3, 4)))
    with pytest.raises(InputError, match="contains several chains") as found:
        read_chain(folder)
    assert len(str(found.value)) < 400


KINDS = {"polychord": "_dead-birth.txt", "getdist": "_1.txt", "csv": ".csv"}
KINDS |= {name: f".{name}" for name in ("paramnames", "ranges")}
WORDS = [b"nan", b"inf", b"-1e400", b"\n", b" x ", b"\0"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_damage_of_any_kind_is_one_line(tmp_path_factory, kind, data):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("damage")
    root = folder / "c"
    if kind == "csv":
        MCMCSamples(data=draws(rng, 60), columns=["x", "y"]).to_csv(folder / "c.csv")
    elif kind == "getdist":
        np.savetxt(folder / "c_1.txt", np.column_stack([np.ones(60), rng.uniform(size=60), draws(rng, 60)]))
    else:
        logl = np.sort(rng.uniform(size=60))
        np.savetxt(folder / "c_dead-birth.txt", np.column_stack([draws(rng, 60), logl, np.r_[-1e30, logl[:-1]]]))
    if kind != "csv":
        write_names(root, ["x", "y"])
    if kind == "ranges":
        (folder / "c.ranges").write_text("x 0 1\ny N N\n")
    path = folder / f"c{KINDS[kind]}"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        new = data.draw(st.one_of(st.binary(max_size=6), st.sampled_from(WORDS)))
        content[at : at + data.draw(st.integers(0, 40))] = new
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(bytes(content))
    try:
        got = read_chain(path if kind == "csv" else root)
        compare_chains([got, got])
    except InputError as error:
        assert len(str(error)) < 400  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


def test_yaml_of_a_stranger_beside_a_chain_is_no_run_of_ours(rng, tmp_path):
    root = polychord_run(rng, tmp_path, "one")
    (root.parent / "run.yaml").write_text(yaml.safe_dump({"resolved": {}, "x": 1}))
    assert read_chain(root).log10 == frozenset()
