"""Two chains: every format, names, log10, known Gaussians, bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from anesthetic import MCMCSamples, NestedSamples, read_chains
from anesthetic.examples.perfect_ns import gaussian
from anesthetic.utils import temporary_seed
from chain_files import COVARIANCE, NAMES, draws, polychord_run, write_names, write_polychord
from scipy.signal import lfilter

from lstmfit.analysis.autocorrelation import autocorrelation_time, effective_sizes, evenly_spaced, is_mcmc
from lstmfit.analysis.compare import align, compare, ks_distance, ks_probability
from lstmfit.analysis.divergence import gaussian_divergence
from lstmfit.analysis.foreign_chains import (
    Chain,
    find_root,
    parameter_names,
    read_chain,
    take_log10,
    without_burn_in,
)
from lstmfit.analysis.plots import corner_of_two
from lstmfit.errors import InputError

DATA = Path(__file__).parents[1] / "data"










@pytest.mark.parametrize("named", ["both", "first", "neither"])
def test_published_polychord_folders(rng, tmp_path, named):
    """The layout of Bevins et al. 2025 (htjb/validating_posteriors): linear columns up to 1e40 with three digits of
    exponent, clusters, prior_info, and a .paramnames of blanks in some folders only."""
    folders = [tmp_path / f"ares_fiducial_model_noise_25_ARES_{ares}_FIXED_NOISE_True" for ares in ("False", "True")]
    for i, folder in enumerate(folders):
        with temporary_seed(i):
            ns = gaussian(100, ndims=2)
        (folder / "clusters").mkdir(parents=True)
        x, y = ns.iloc[:, :2].to_numpy().T
        rows = np.column_stack([10.0 ** (39 + x + 0.3 * i), y, ns.logL, ns.logL_birth])
        lines = ["".join(f" {v:.14E}".replace("E+", "E+0").replace("E-", "E-0") for v in row) for row in rows]
        assert any("E+039" in line for line in lines)
        (folder / "test_dead-birth.txt").write_text("\n".join(lines) + "\n")
        # Those of the last update, which died afterwards.
        (folder / "test_phys_live-birth.txt").write_text("\n".join(lines[-150:-50]) + "\n")
        (folder / "test_equal_weights.txt").write_text("")
        (folder / "clusters" / "test_1.txt").write_text(lines[0] + "\n")
        (folder / "test.prior_info").write_text("nprior =          200\n")
        if named == "both" or (named == "first" and i == 0):
            (folder / "test.paramnames").write_text("cX   c_X\nfesc   f_{esc}\n")
    a, b = (read_chain(folder) for folder in folders)
    first, second = ("0", "1") if named == "neither" else ("cX", "fesc")
    a, b, names = align(a, b, [first])
    assert names == [first, second]
    got = compare(a.samples, b.samples, names)
    assert got["parameters"][first]["shift"] == pytest.approx(-0.3 / got["parameters"][first]["std_b"], abs=0.15)
    assert abs(got["parameters"][second]["shift"]) < 0.2
    assert abs(got["dlogZ"]) < 3 * got["dlogZ_err"]
    assert len(b.samples) == len(rows)


def test_unnamed_chains_of_other_sizes_need_names(rng, tmp_path):
    roots = [polychord_run(rng, tmp_path, name, names=None) for name in "ab"]
    table = np.loadtxt(roots[1].with_name("test_dead-birth.txt"))
    write_polychord(roots[1], table[:, :1], table[:, 2:], names=None)
    with pytest.raises(InputError, match=r"has 2 columns without names and .* has 1; add a \.paramnames"):
        align(read_chain(roots[0]), read_chain(roots[1]))


def test_known_gaussians(rng):
    a = MCMCSamples(data=draws(rng, 4000, (0.5, 0.0), 1.3), columns=NAMES)
    b = MCMCSamples(data=draws(rng, 4000), columns=NAMES)
    got = compare(a, b, NAMES)
    x = got["parameters"]["x"]
    assert x["bias"] == pytest.approx(0.5, abs=4 * x["bias_err"])
    assert x["difference_sigma"] == pytest.approx(x["bias"] / np.hypot(1, x["width_ratio"]))
    assert x["width_ratio"] == pytest.approx(1.3, rel=0.06)
    assert got["parameters"]["y"]["bias"] < 4 * got["parameters"]["y"]["bias_err"]
    expected = gaussian_divergence([0, 0], COVARIANCE, [0.5, 0], 1.69 * COVARIANCE)
    reverse = gaussian_divergence([0.5, 0], 1.69 * COVARIANCE, [0, 0], COVARIANCE)
    assert abs(got["D_KL_gaussian"] - expected) < 4 * got["D_KL_gaussian_err"]
    assert abs(got["D_KL"] - expected) < 4 * got["D_KL_err"] + 0.02
    assert abs(got["D_KL_gaussian_reverse"] - reverse) < 4 * got["D_KL_gaussian_reverse_err"]
    assert got["logZ_a"] is None
    json.dumps(got)


def test_a_larger_sample_of_the_same_has_no_divergence(rng):
    """Distances of neighbours in a box with edges depend on the number of points; that must not pass for nats."""
    names = [f"p{i}" for i in range(6)]
    a, b = (MCMCSamples(data=rng.uniform(size=(n, 6)), columns=names) for n in (4000, 400))
    got = compare(a, b, names)
    assert abs(got["D_KL"]) < 4 * got["D_KL_err"] < 0.5
    assert abs(got["D_KL_reverse"]) < 4 * got["D_KL_reverse_err"] < 0.5


def test_weights_are_respected(rng):
    """Weighting makes one Gaussian out of another."""
    x = rng.standard_normal((20000, 1)) * 1.5
    weights = np.exp(-0.5 * (x[:, 0] - 0.7) ** 2 + 0.5 * (x[:, 0] / 1.5) ** 2)
    a = MCMCSamples(data=x, columns=["x"], weights=weights)
    b = MCMCSamples(data=0.7 + rng.standard_normal((5000, 1)), columns=["x"])
    got = compare(a, b, ["x"])
    p = got["parameters"]["x"]
    assert p["bias"] < 4 * p["bias_err"]
    assert p["width_ratio"] == pytest.approx(1.0, abs=0.06)
    assert p["ks_p"] > 1e-3
    assert abs(got["D_KL"]) < 4 * got["D_KL_err"] + 0.02
    assert got["ess_a"] < 15000


def test_kolmogorov_smirnov_is_scipys_where_weights_are_equal(rng):
    from scipy.stats import ks_2samp

    x, y = rng.standard_normal(300), 0.2 + rng.standard_normal(500)
    expected = ks_2samp(x, y, method="asymp")
    distance = ks_distance(x, np.ones(300), y, np.ones(500))
    assert distance == pytest.approx(expected.statistic)
    assert ks_probability(distance, 300, 500) == pytest.approx(expected.pvalue, rel=0.3)


def test_polychord_chains_with_evidence(rng, tmp_path):
    roots = [polychord_run(rng, tmp_path, name) for name in ("one", "two")]
    a, b, names = align(*(read_chain(root) for root in roots))
    assert names == NAMES
    got = compare(a.samples, b.samples, names)
    assert got["logZ_a"] == pytest.approx(got["logZ_b"], abs=4 * np.hypot(got["logZ_a_err"], got["logZ_b_err"]))
    assert 0.01 < got["logZ_a_err"] < 0.5
    assert isinstance(a.samples, NestedSamples)
    # A folder with one chain in it will do, and so will one of its files.
    assert find_root(roots[0].parent) == roots[0]
    assert find_root(roots[0].parent / "test_dead-birth.txt") == roots[0]


def test_a_chain_without_names_takes_the_others(rng, tmp_path):
    a = polychord_run(rng, tmp_path, "named")
    b = polychord_run(rng, tmp_path, "unnamed", names=None)
    for pair in ((a, b), (b, a)):
        one, two, names = align(*(read_chain(root) for root in pair))
        assert names == NAMES
        assert compare(one.samples, two.samples, names)["parameters"]["x"]["bias"] < 0.3


def test_other_formats(rng, tmp_path):
    x = draws(rng, 1000)
    rows = np.column_stack([np.ones(1000), np.zeros(1000), x])
    np.savetxt(tmp_path / "getdist_1.txt", rows)
    write_names(tmp_path / "getdist")
    header = "weight minuslogpost x y minuslogprior minuslogprior__0 chi2 chi2__spectrum"
    np.savetxt(tmp_path / "cobaya.1.txt", np.column_stack([rows, np.zeros((1000, 4))]), header=header)
    MCMCSamples(data=x, columns=NAMES).to_csv(tmp_path / "frame.csv")
    for name in ("getdist", "cobaya", "frame.csv"):
        chain = read_chain(tmp_path / name)
        np.testing.assert_allclose(chain.samples[NAMES].to_numpy(), x, rtol=1e-6)
        assert parameter_names(chain.samples) == NAMES
    assert "logP" in read_chains(str(tmp_path / "cobaya"))


# Files of MultiNest 3.7 and UltraNest 4.6.3 themselves: log10 fX and b Gaussian with these, in a flat prior of area 16.
TRUTH = {"fX": (0.3, 0.1), "b": (-1.0, np.sqrt(0.02))}


def assert_is_the_known_gaussian(chain, names):
    got = compare(chain.samples, chain.samples, names)
    for name, (mean, std) in zip(names, TRUTH.values()):
        p = got["parameters"][name]
        assert p["mean_a"] == pytest.approx(mean, abs=4 * std / np.sqrt(got["ess_a"]))
        assert p["std_a"] == pytest.approx(std, rel=0.25)
    assert got["ess_a"] < got["n_a"], "the weights are not respected"
    assert got["logZ_a"] == pytest.approx(-np.log(16), abs=4 * got["logZ_a_err"])
    assert (got["dlogZ"], got["mean_bias"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    "path", ["multinest", "multinest/test-", "multinest/test-ev.dat", "multinest/test-.paramnames"]
)
def test_multinests_own_files(path):
    chain = read_chain(DATA / path)
    assert isinstance(chain.samples, NestedSamples)
    _, two, names = align(chain, chain, ["fX"])
    assert names == ["fX", "b"]
    assert_is_the_known_gaussian(two, names)


def test_multinest_of_the_newer_layout(rng, tmp_path):
    """Version 3.10 and later: parameters, ln L, its birth, ln of the volume step, cluster."""
    old = polychord_run(rng, tmp_path, "polychord")
    rows = np.loadtxt(old.with_name("test_dead-birth.txt"))
    root = tmp_path / "new" / "1-"
    root.parent.mkdir()
    more = np.column_stack([rows, np.full(len(rows), -5.0), np.ones(len(rows))])
    np.savetxt(root.with_name("1-dead-birth.txt"), more[:-200])
    np.savetxt(root.with_name("1-phys_live-birth.txt"), np.delete(more[-200:], -2, axis=1))
    write_names(root)
    a, b, names = align(read_chain(old), read_chain(root.parent))
    got = compare(a.samples, b.samples, names)
    assert max(p["bias"] for p in got["parameters"].values()) < 1e-12
    assert got["dlogZ"] == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("inside", [".", "run1"])
def test_ultranests_own_files(inside, tmp_path):
    shutil.copytree(DATA / "ultranest", tmp_path / "out" / inside)
    chain = read_chain(tmp_path / "out")
    _, two, names = align(chain, chain, ["f X"])
    assert names == ["f X", "b"]
    assert_is_the_known_gaussian(two, names)


def test_ultranest_without_its_points(tmp_path):
    shutil.copytree(DATA / "ultranest", tmp_path / "out")
    (tmp_path / "out" / "results" / "points.hdf5").unlink()
    with pytest.raises(InputError, match=r"UltraNest run without results/points.hdf5; run it with storage_backend"):
        read_chain(tmp_path / "out")


def test_what_is_left_of_polychord(rng, tmp_path, monkeypatch):
    """Only ROOT.txt and ROOT_equal_weights.txt, with weights, -2 ln L and parameters, and no names."""
    x = 1.5 * rng.standard_normal((4000, 2))
    weights = np.exp(-0.5 * ((x - 0.5) ** 2).sum(axis=1) + 0.5 * ((x / 1.5) ** 2).sum(axis=1))
    rows = np.column_stack([weights / weights.max(), ((x - 0.5) ** 2).sum(axis=1), x])
    np.savetxt(tmp_path / "run.txt", rows)
    np.savetxt(tmp_path / "run_equal_weights.txt", rows[rng.random(4000) < rows[:, 0]])
    named = Chain("named", MCMCSamples(data=0.5 + rng.standard_normal((4000, 2)), columns=NAMES))
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, "run", "run.txt", "run_equal_weights.txt"):
        a, b, names = align(read_chain(path), named)
        assert names == NAMES
        got = compare(a.samples, b.samples, names)
        assert all(p["bias"] < 4 * p["bias_err"] for p in got["parameters"].values())
        assert got["dlogZ"] is None


@pytest.mark.parametrize("separator", ["\t", "   "])
def test_names_with_spaces_and_marks(rng, tmp_path, separator):
    """Of which anesthetic would take the first words, the same for both."""
    root = polychord_run(rng, tmp_path, "one", names=None)
    lines = [f"log10 fX{separator}\\log_{{10}} f_X", f"log10 tau*{separator}\\log_{{10}} \\tau"]
    root.with_name("test.paramnames").write_text("\n".join(lines) + "\n")
    chain = read_chain(root)
    _, _, names = align(chain, chain)
    assert names == ["log10 fX", "log10 tau"]
    assert chain.samples.get_label("log10 tau") == r"$\log_{10} \tau$"
    np.testing.assert_array_equal(chain.samples["log10 tau"].to_numpy(), chain.samples.to_numpy()[:, 1])
    assert isinstance(chain.samples, NestedSamples)
    compare(chain.samples, chain.samples, names)
    root.with_name("test.paramnames").write_text("log10 fX\nlog10 tau\n")
    with pytest.raises(InputError, match=r"contains the name 'log10' twice; .* with a tab before its"):
        read_chain(root)


def test_getdist_with_ranges_and_several_chains(rng, tmp_path):
    x = draws(rng, 900)
    for i in (1, 2, 3):
        part = x[300 * (i - 1) : 300 * i]
        np.savetxt(tmp_path / f"g_{i}.txt", np.column_stack([np.full(300, i), np.zeros(300), part]))
    write_names(tmp_path / "g", ["x", "y*"])
    (tmp_path / "g.ranges").write_text("x -5 N\ny N 5\n")
    for path in (tmp_path, tmp_path / "g", tmp_path / "g.ranges"):
        samples = read_chain(path).samples
        np.testing.assert_array_equal(samples[NAMES].to_numpy(), x)
        np.testing.assert_array_equal(np.unique(samples.get_weights()), [1, 2, 3])


def test_log10_of_named_columns(rng):
    log = draws(rng, 500)
    linear = np.column_stack([10 ** log[:, 0], log[:, 1]])
    a = Chain("a", MCMCSamples(data=linear, columns=NAMES))
    b = Chain("b", MCMCSamples(data=linear, columns=NAMES))
    one, two, _ = align(a, b, ["x"])
    np.testing.assert_allclose(one.samples["x"], log[:, 0])
    np.testing.assert_array_equal(a.samples["x"], linear[:, 0])
    # Our own runs are in log10 already; the other chain must be brought there.
    ours = Chain("ours", MCMCSamples(data=log, columns=NAMES), frozenset(["x"]))
    one, two, _ = align(ours, b, ["x"])
    np.testing.assert_allclose(one.samples["x"], two.samples["x"])
    with pytest.raises(InputError, match="x is in log10 in one chain only; add --log10 x"):
        align(ours, b)
    with pytest.raises(InputError, match="no parameter 'X' in either chain; did you mean 'x'"):
        align(a, b, ["X"])
    with pytest.raises(InputError, match="--log10 y: the values go down to"):
        take_log10(a.samples, ["y"])


def test_bad_chains(rng, tmp_path):
    with pytest.raises(InputError, match="no chain at"):
        read_chain(tmp_path / "nothing" / "here")
    with pytest.raises(InputError, match="contains no chain of a known format"):
        read_chain(tmp_path)
    one = tmp_path / "one"
    one.mkdir()
    np.savetxt(one / "c_1.txt", np.ones((1, 4)))
    write_names(one / "c")
    with pytest.raises(InputError, match=r"effective sample size of 1\.0 \(1 rows\), but at least 25 is needed"):
        read_chain(one / "c")
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "c_dead-birth.txt").write_text("1 2 3 4\n1 2")
    write_names(torn / "c")
    with pytest.raises(InputError, match="anesthetic cannot read the chain"):
        read_chain(torn / "c")
    begun = tmp_path / "begun"
    begun.mkdir()
    write_names(begun / "chain")
    (begun / "chain.resume").write_text("")
    with pytest.raises(InputError, match="let the run finish"):
        read_chain(begun)
    a = Chain("a", MCMCSamples(data=draws(rng, 50), columns=["p", "q"]))
    b = Chain("b", MCMCSamples(data=draws(rng, 50), columns=NAMES))
    with pytest.raises(InputError, match="share no parameter: a has p, q, b has x, y"):
        align(a, b)
    no_weight = MCMCSamples(data=draws(rng, 50), columns=NAMES, weights=np.zeros(50))
    no_weight.to_csv(tmp_path / "zero.csv")
    with pytest.raises(InputError, match=r"weights are negative or not finite|anesthetic cannot read"):
        read_chain(tmp_path / "zero.csv")


def autoregressive(rng, n, rho, d=2):
    """Gaussian chains of unit variance whose autocorrelation time is (1 + rho) / (1 - rho)."""
    noise = np.sqrt(1.0 - rho**2) * rng.standard_normal((n + 5000, d))
    return lfilter([1.0], [1.0, -rho], noise, axis=0)[5000:]


def write_getdist(root, x, names=None, weights=1.0):
    table = np.column_stack([np.full(len(x), weights), 0.5 * (x**2).sum(axis=1), x])
    np.savetxt(root.with_name(root.name + ".txt"), table)
    if names:
        write_names(root, names)


def test_autocorrelation_times(rng):
    for rho in (0.0, 0.5, 0.9):
        chains = autoregressive(rng, 20000, rho, 4).T
        assert autocorrelation_time(list(chains)) == pytest.approx((1 + rho) / (1 - rho), rel=0.1)
    assert autocorrelation_time([np.zeros(10)]) == 1.0
    # Repetitions as weights are repetitions as rows.
    x, repeats = autoregressive(rng, 5000, 0.9, 1), rng.integers(1, 5, 5000)
    weighted = MCMCSamples(data=x, columns=["x"], weights=repeats)
    long = MCMCSamples(data=np.repeat(x, repeats, axis=0), columns=["x"])
    assert effective_sizes(weighted, ["x"])[0] == pytest.approx(effective_sizes(long, ["x"])[0], rel=0.15)


def test_chains_that_disagree_are_worth_little(rng):
    """Each well behaved, about another mean: the common mean is taken, not each chain's own."""
    x = np.concatenate([rng.standard_normal((1000, 1)) + mean for mean in (-2.0, 2.0)])
    one = MCMCSamples(data=x, columns=["x"])
    one["chain"] = np.repeat([1, 2], 1000)
    assert effective_sizes(one, ["x"])[0][0] < 20


def test_evenly_spaced_rows(rng):
    weights = rng.uniform(size=1000)
    rows = evenly_spaced(weights, 300, rng)
    assert len(np.unique(rows)) == 300
    assert np.ptp(np.histogram(np.cumsum(weights)[rows], 10)[0]) <= 2


def test_errors_of_markov_chains_are_honest(rng):
    pulls, p = [], []
    for _ in range(40):
        a, b = (MCMCSamples(data=autoregressive(rng, 2000, 0.9), columns=NAMES) for _ in "ab")
        for figures in compare(a, b, NAMES)["parameters"].values():
            pulls.append(figures["shift"] / figures["bias_err"])
            p.append(figures["ks_p"])
    assert 0.8 < np.std(pulls) < 1.25
    assert min(p) > 1e-3


def test_short_markov_chains_are_not_significant_and_said_to_be_short(rng):
    a, b = (MCMCSamples(data=autoregressive(rng, 10000, 0.995), columns=NAMES) for _ in "ab")
    got = compare(a, b, NAMES)
    for p in got["parameters"].values():
        assert p["bias"] < 4 * p["bias_err"]
        assert p["bias_err"] > 0.1
        assert p["ks_p"] > 1e-3
    assert got["ess_a"] < 100
    assert abs(got["D_KL"]) < 4 * got["D_KL_err"]
    assert any("Markov chain, autocorrelation time up to" in line for line in got["notes"])


def test_independent_points_are_not_degraded(rng, tmp_path):
    x = np.cumsum(rng.standard_normal((1000, 2)), axis=0)
    ours = MCMCSamples(data=x, columns=NAMES)
    assert is_mcmc(ours)
    ours.attrs["evidence"] = (-1.0, 0.1)
    assert not is_mcmc(ours)
    assert effective_sizes(ours, NAMES)[0] == pytest.approx([1000, 1000])
    # What is left of a nested-sampling run is sorted by its likelihood.
    assert not is_mcmc(MCMCSamples(data=x, columns=NAMES, logL=np.arange(1000.0)))
    # A GetDist file of independent rows.
    write_getdist(tmp_path / "iid", draws(rng, 5000), NAMES)
    sizes, _ = effective_sizes(read_chain(tmp_path / "iid").samples, NAMES)
    assert sizes.min() > 4000


def test_burn_in(rng, tmp_path):
    for i in (1, 2):
        x = draws(rng, 1000)
        x[:300] += 20.0
        write_getdist(tmp_path / f"mc_{i}", x)
    write_names(tmp_path / "mc")
    chain = read_chain(tmp_path / "mc")
    nested = read_chain(polychord_run(rng, tmp_path, "nested"))
    cut, same = without_burn_in([chain, nested], 0.3)
    assert same is nested
    assert len(cut.samples) == 1400
    assert cut.samples["x"].to_numpy().max() < 10
    assert without_burn_in([chain, nested], 0) == [chain, nested]
    assert "B: first 30 % of each chain discarded as burn-in" in compare(nested.samples, cut.samples, NAMES)["notes"]
    for fraction in (-0.1, 1.0, np.nan):
        with pytest.raises(InputError, match=r"--burn-in is .*, but must be a fraction of the rows, at least 0"):
            without_burn_in([chain, nested], fraction)
    with pytest.raises(InputError, match="are nested samples or weighted points, which have no burn-in"):
        without_burn_in([nested, nested], 0.1)
    with pytest.raises(InputError, match=r"without burn-in has an effective sample size of .* \(20 rows\)"):
        without_burn_in([chain, nested], 0.99)


def test_divergence_is_of_sampled_parameters(rng, tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        x = draws(rng, 2000)
        write_getdist(path, np.column_stack([x, x[:, 0] + x[:, 1] ** 2, 2.0 * x[:, 0]]), [*NAMES, "s*", "double"])
    a, b, names = align(*(read_chain(path) for path in paths))
    got, alone = compare(a.samples, b.samples, names), compare(a.samples, b.samples, NAMES)
    assert list(got["parameters"]) == [*NAMES, "s", "double"]
    assert got["D_KL_parameters"] == NAMES
    for key in ("D_KL", "D_KL_gaussian", "D_KL_reverse", "D_KL_gaussian_reverse", "D_KL_gaussian_err"):
        assert got[key] == pytest.approx(alone[key])
    assert got["notes"] == ["not in D_KL, derived: s", "not in D_KL, linear in others: double"]
    only = compare(a.samples, b.samples, ["s"])
    assert (only["D_KL"], only["D_KL_gaussian_err"], only["D_KL_parameters"]) == (None, None, [])


def test_what_is_not_compared_is_said(rng):
    x = draws(rng, 100)
    a = MCMCSamples(data=np.column_stack([x, x[:, 0], np.full(100, 0.1)]), columns=["x", "y", "mine", "fixed"])
    b = MCMCSamples(data=np.column_stack([x, x[:, 1], x[:, 1]]), columns=["x", "y", "yours", "fixed"])
    one, two, names = align(Chain("a", a), Chain("b", b))
    got = compare(one.samples, two.samples, names)
    assert names == NAMES
    assert (got["only_a"], got["only_b"], got["constant"]) == (["mine"], ["yours"], ["fixed"])
    assert got["notes"][-3:] == ["only in A: mine", "only in B: yours", "constant: fixed"]
    with pytest.raises(InputError, match="a and b only share fixed, none of which varies in both"):
        align(Chain("a", a[["fixed"]]), Chain("b", b[["fixed"]]))


def test_values_that_are_no_numbers(rng):
    x = draws(rng, 100)
    x[3:5, 1], x[7, 0] = np.nan, np.inf
    weights = np.ones(100)
    good = Chain("good", MCMCSamples(data=draws(rng, 100), columns=NAMES))
    for log10 in ([], ["y"]):
        with pytest.raises(InputError, match=r"bad: 1 of 100 values of x are NaN or infinite; remove these rows"):
            align(Chain("bad", MCMCSamples(data=x, columns=NAMES, weights=weights)), good, log10)
    # What has no weight may be anything.
    weights[[3, 4, 7]] = 0.0
    a, b, names = align(Chain("weightless", MCMCSamples(data=x, columns=NAMES, weights=weights)), good)
    assert names == NAMES
    got = compare(a.samples, b.samples, names)
    assert np.isfinite([got["D_KL_gaussian"], got["D_KL"], *got["parameters"]["y"].values()]).all()


@pytest.mark.parametrize("kind", ["nested", "markov"])
def test_a_chain_against_itself(rng, tmp_path, kind):
    if kind == "nested":
        samples = read_chain(polychord_run(rng, tmp_path, "one")).samples
    else:
        samples = MCMCSamples(data=autoregressive(rng, 20000, 0.98), columns=NAMES)
    got = compare(samples, samples, NAMES)
    assert (got["mean_bias"], got["D_KL"], got["D_KL_reverse"]) == (0.0, 0.0, 0.0)
    assert abs(got["D_KL_gaussian"]) < 1e-12


def test_the_same_points_with_other_weights(rng, tmp_path):
    samples = read_chain(polychord_run(rng, tmp_path, "one")).samples
    weights = samples.get_weights() * rng.uniform(0.5, 1.5, len(samples))
    other = MCMCSamples(data=samples[NAMES].to_numpy(), columns=NAMES, weights=weights)
    other.attrs["evidence"] = (0.0, 0.0)
    got = compare(samples, other, NAMES)
    assert abs(got["D_KL"]) < 3 * got["D_KL_err"]
    assert abs(got["D_KL_reverse"]) < 3 * got["D_KL_reverse_err"]


def test_files_without_weights_or_without_chains(rng, tmp_path):
    np.savetxt(tmp_path / "bare.txt", draws(rng, 4000))
    with pytest.raises(InputError, match=r"no parameters \(bare\.txt has 2 columns, but should have weight, -ln L and"):
        read_chain(tmp_path / "bare")
    write_names(tmp_path / "bare")
    with pytest.raises(InputError, match=r"\(bare\.txt has 2 columns, but should have weight, -ln L and the 2"):
        read_chain(tmp_path / "bare")
    np.savetxt(tmp_path / "four.txt", rng.standard_normal((4000, 4)))
    with pytest.raises(InputError, match="whose first two columns are not weight and -ln L"):
        read_chain(tmp_path / "four")
    write_names(tmp_path / "lone")
    looked_for = r"looked for lone_dead-birth\.txt \(PolyChord\).* lone_1\.txt \(GetDist\).* in "
    with pytest.raises(InputError, match=looked_for) as caught:
        read_chain(tmp_path / "lone")
    assert "<function" not in str(caught.value)


def test_a_picture_with_a_function_of_a_parameter(rng, tmp_path):
    """All points of such a pair lie on a curve, that is on their convex hull."""
    with temporary_seed(1):
        samples = gaussian(200, ndims=2)
    samples["curve"] = 10.0 ** samples[0].to_numpy() + 1.0
    chain = Chain("a", samples.rename(columns={0: "x", 1: "y"}))
    corner_of_two(chain, chain, ["x", "y", "curve"], tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_the_command(rng, tmp_path):
    roots = [polychord_run(rng, tmp_path, name) for name in ("one", "two")]
    command = [sys.executable, "-m", "lstmfit", "compare", *map(str, roots)]
    command += ["--json", str(tmp_path / "c.json"), "--plot", str(tmp_path / "c.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    got = json.loads((tmp_path / "c.json").read_text())
    assert {"parameters", "D_KL_gaussian", "D_KL", "D_KL_err", "logZ_a", "logZ_b"} <= set(got)
    assert {"bias", "difference_sigma", "ks", "width_ratio"} <= set(got["parameters"]["x"])
    assert got["dlogZ"] == got["logZ_b"] - got["logZ_a"]
    for what in ("bias |mean A - mean B| / std B: ", "D_KL(B || A) [nat]: ", "D_KL(A || B) [nat]: ", "logZ of B minus"):
        assert what in done.stdout
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    bad = subprocess.run([*command[:4], "nothing", str(roots[0])], capture_output=True, text=True, timeout=120)
    assert bad.returncode == 2
    assert len(bad.stderr.strip().splitlines()) == 1


def test_the_command_on_markov_chains(rng, tmp_path):
    for name in "ab":
        write_getdist(tmp_path / name, autoregressive(rng, 3000, 0.9), ["x", f"only{name}"])
    command = [sys.executable, "-m", "lstmfit", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--burn-in"]
    done = subprocess.run([*command, "0.1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2,700 rows, effective sample size " in done.stdout
    for what in ("only in A: onlya", "only in B: onlyb", "A: first 10 %", "A: Markov chain"):
        assert what in done.stdout
    bad = subprocess.run([*command, "1.5"], capture_output=True, text=True, timeout=120)
    assert (bad.returncode, len(bad.stderr.strip().splitlines())) == (2, 1)
