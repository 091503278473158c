"""The same problem in bilby."""

import json
import logging
import pickle

import bilby
import numpy as np
import pytest
from helpers import lstmfit, small_run

from lstmfit import config as run_file
from lstmfit.analysis.foreign_chains import read_chain
from lstmfit.driver import fit
from lstmfit.errors import InputError
from lstmfit.interfaces.bilby import FromDistribution, likelihood_and_priors


@pytest.mark.parametrize("name", sorted(run_file.shipped_runs()))
def test_shipped_run_files_have_the_same_likelihood_and_prior(rng, name, request):
    if "public: edges2018" in run_file.shipped_runs()[name].read_text():
        request.getfixturevalue("edges")
    likelihood, priors = likelihood_and_priors(name)
    problem = likelihood.problem
    assert tuple(priors) == problem.names
    for cube in rng.uniform(size=(100, len(problem.names))):
        theta = problem.prior_transform(cube)
        point = dict(zip(problem.names, theta))
        np.testing.assert_allclose(priors.rescale(problem.names, cube), theta, rtol=1e-9)
        assert priors.ln_prob(point) == pytest.approx(problem.prior.logpdf(theta), rel=1e-9)
        ours = problem.loglikelihood(theta)[0]
        assert likelihood.log_likelihood(point) == (ours if np.isfinite(ours) else -np.inf)


def test_priors_that_bilby_does_not_have(rng):
    params = {
        "fX": {"prior": {"dist": "lognorm", "s": 0.5}},
        "fesc": {"prior": {"dist": "beta", "a": 2, "b": 9}},
        "tstar": {"prior": {"dist": "truncnorm", "loc": 0.5, "scale": 0.3, "min": 0.1, "max": 1}},
        "sLy": {"prior": {"dist": "norm", "loc": 2, "scale": 0.1}},
    }
    likelihood, priors = likelihood_and_priors(small_run(params=params, extrapolate=True))
    assert isinstance(priors["fX"], FromDistribution)
    problem = likelihood.problem
    cube = rng.uniform(size=len(problem.names))
    np.testing.assert_allclose(priors.rescale(problem.names, cube), problem.prior_transform(cube), rtol=1e-6)
    theta = problem.prior_transform(cube)
    assert priors.ln_prob(dict(zip(problem.names, theta))) == pytest.approx(problem.prior.logpdf(theta), rel=1e-6)
    # bilby writes priors to its results as text, and sends them to its workers.
    assert "FromDistribution(spec={'dist': 'lognorm'" in repr(priors["fX"])
    assert pickle.loads(pickle.dumps(priors))["fX"].rescale(0.3) == priors["fX"].rescale(0.3)


def test_sorted_parameters_and_nothing_to_sample_are_refused():
    sorted_ones = {name: {"prior": {"min": 1, "max": 2, "sorted": "s"}} for name in ("sLy", "wX")}
    with pytest.raises(InputError, match="sLy, wX are sorted, which bilby's priors cannot express; remove sorted"):
        likelihood_and_priors(small_run(params=sorted_ones))
    fixed = small_run()["params"] | {"fX": 0.1, "Tmin_vir": 1e4}
    with pytest.raises(InputError, match="has no sampled parameter; give one of them a prior"):
        likelihood_and_priors(small_run(params=fixed))


@pytest.mark.slow
@pytest.mark.ci
def test_dynesty_agrees_with_polychord_and_compare_reads_its_result(tmp_path):
    logging.getLogger("bilby").setLevel(logging.WARNING)
    likelihood, priors = likelihood_and_priors(small_run())
    bilby.core.utils.random.seed(3)
    bilby.run_sampler(
        likelihood, priors, sampler="dynesty", nlive=100, dlogz=0.1, sample="rwalk", walks=20, maxmcmc=200, naccept=10,
        outdir=str(tmp_path / "bilby"), label="mock", check_point_plot=False, resume=False,
    )  # fmt: skip
    folder = fit(small_run(), tmp_path / "run")
    log10 = ("--log10", "fX,Tmin_vir")
    for path in (tmp_path / "bilby", tmp_path / "bilby" / "mock_result.json"):
        done = lstmfit("compare", folder, path, *log10, "--json", tmp_path / "c.json")
        assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "c.json").read_text())
    for p in figures["parameters"].values():
        assert abs(p["bias"]) < 0.5
        assert 0.7 < p["width_ratio"] < 1.4
    assert abs(figures["dlogZ"]) < 4 * figures["dlogZ_err"]


@pytest.mark.parametrize("content", ["{}", "[1]", "no json", '{"posterior": {"content": {"a": [1, 2]}}}'])
def test_other_results_are_one_line(tmp_path, content):
    (tmp_path / "x_result.json").write_text(content)
    with pytest.raises(InputError, match=r"x_result.json is not a result of bilby"):
        read_chain(tmp_path / "x_result.json")
