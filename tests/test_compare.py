"""Two chains: every format, names, log10, known Gaussians, bad input."""

import json
import subprocess
import sys

import numpy as np
import pytest
from anesthetic import MCMCSamples, NestedSamples
from anesthetic.examples.perfect_ns import gaussian

from lstmfit.analysis.compare import (
    Chain,
    align,
    compare,
    find_root,
    ks_distance,
    ks_probability,
    read_chain,
    take_log10,
)
from lstmfit.analysis.divergence import gaussian_divergence
from lstmfit.errors import InputError

NAMES = ["x", "y"]
COVARIANCE = np.array([[1.0, 0.6], [0.6, 2.0]])


def draws(rng, n, mean=(0.0, 0.0), scale=1.0):
    return rng.multivariate_normal(mean, scale**2 * COVARIANCE, n)


def write_names(root, names=NAMES):
    root.with_name(root.name + ".paramnames").write_text("".join(f"{n}\t{n}_{{p}}\n" for n in names))


def write_polychord(root, x, logL, names=NAMES):
    """A perfect nested-sampling run as PolyChord writes it."""
    table = np.column_stack([x, logL])
    np.savetxt(root.with_name(root.name + "_dead-birth.txt"), table)
    if names:
        write_names(root, names)


def polychord_run(rng, tmp_path, name, names=NAMES, **kwargs):
    """A nested-sampling run over a uniform ball with a Gaussian likelihood, from anesthetic's own generator."""
    np.random.seed(int(rng.integers(2**31)))  # noqa: NPY002 (anesthetic draws from the global state)
    ns = gaussian(200, ndims=2, **kwargs)
    columns = [c for c in ns.columns.get_level_values(0) if c not in ("logL", "logL_birth", "nlive")]
    x = ns[columns].to_numpy()
    root = tmp_path / name / "test"
    root.parent.mkdir()
    write_polychord(root, x, np.column_stack([ns.logL.to_numpy(), ns.logL_birth.to_numpy()]), names)
    return root


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
    with pytest.raises(InputError, match="x is log10 in one chain only; add --log10 x"):
        align(ours, b)
    with pytest.raises(InputError, match="no parameter 'X' in either chain; did you mean 'x'"):
        align(a, b, ["X"])
    with pytest.raises(InputError, match="--log10 y: values down to"):
        take_log10(a.samples, ["y"])


def test_bad_chains(rng, tmp_path):
    with pytest.raises(InputError, match="no chain at"):
        read_chain(tmp_path / "nothing" / "here")
    with pytest.raises(InputError, match="holds no chain that is known"):
        read_chain(tmp_path)
    one = tmp_path / "one"
    one.mkdir()
    np.savetxt(one / "c_1.txt", np.ones((1, 4)))
    write_names(one / "c")
    with pytest.raises(InputError, match=r"1 rows worth 1\.0 samples; at least 25 are needed"):
        read_chain(one / "c")
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "c_dead-birth.txt").write_text("1 2 3 4\n1 2")
    write_names(torn / "c")
    with pytest.raises(InputError, match="no chain that anesthetic can read"):
        read_chain(torn / "c")
    begun = tmp_path / "begun"
    begun.mkdir()
    write_names(begun / "chain")
    (begun / "chain.resume").write_text("")
    with pytest.raises(InputError, match="a run that has not finished"):
        read_chain(begun)
    a = Chain("a", MCMCSamples(data=draws(rng, 50), columns=["p", "q"]))
    b = Chain("b", MCMCSamples(data=draws(rng, 50), columns=NAMES))
    with pytest.raises(InputError, match="a has parameters p, q; b has x, y; none in common"):
        align(a, b)
    no_weight = MCMCSamples(data=draws(rng, 50), columns=NAMES, weights=np.zeros(50))
    no_weight.to_csv(tmp_path / "zero.csv")
    with pytest.raises(InputError, match=r"weights are not finite numbers above zero|no chain that anesthetic"):
        read_chain(tmp_path / "zero.csv")


def test_the_command(rng, tmp_path):
    roots = [polychord_run(rng, tmp_path, name) for name in ("one", "two")]
    command = [sys.executable, "-m", "lstmfit", "compare", *map(str, roots)]
    command += ["--json", str(tmp_path / "c.json"), "--plot", str(tmp_path / "c.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    got = json.loads((tmp_path / "c.json").read_text())
    assert {"parameters", "D_KL_gaussian", "D_KL", "D_KL_err", "logZ_a", "logZ_b"} <= set(got)
    assert {"bias", "difference_sigma", "ks", "width_ratio"} <= set(got["parameters"]["x"])
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    bad = subprocess.run([*command[:4], "nothing", str(roots[0])], capture_output=True, text=True, timeout=120)
    assert bad.returncode == 2
    assert len(bad.stderr.strip().splitlines()) == 1
