"""What GetDist makes of a run's folder."""

import getdist
import numpy as np
import pytest
from helpers import small_run

from lstmfit.analysis.chains import read_run
from lstmfit.analysis.foreign_chains import find_root, read_chain
from lstmfit.driver import fit

SAMPLERS = {
    "polychord": {"polychord": {"nlive": 30, "num_repeats": 2, "seed": 1}},
    "nautilus": {"nautilus": {"n_live": 100, "n_eff": 200, "seed": 1}},
}


@pytest.mark.parametrize("sampler", ["polychord", pytest.param("nautilus", marks=[pytest.mark.slow, pytest.mark.ci])])
def test_getdist_reads_names_likelihoods_ranges_and_weights(tmp_path, sampler):
    params = small_run()["params"] | {"double": {"derived": "2 * Tmin_vir"}}
    folder = fit(small_run(sampler=SAMPLERS[sampler], params=params), tmp_path / "run", jobs=1)
    run = read_run(folder)
    got = getdist.loadMCSamples(str(folder / "chain_getdist"))
    names = got.getParamNames()
    assert names.list() == ["fX", "Tmin_vir", "loglike_global_signal", "double"]
    assert [names.parWithName(name).isDerived for name in names.list()] == [False, False, True, True]
    weights = run.samples.get_weights()
    for name in names.list():
        expected = np.average(run.samples[name].to_numpy(), weights=weights)
        assert got.mean(name) == pytest.approx(expected, rel=1e-6)
    # -ln L, not -2 ln L.
    assert got.loglikes.min() == pytest.approx(-run.samples["logL"].max(), rel=1e-9)
    # Equal ones have been moved apart by anesthetic.
    np.testing.assert_allclose(got.loglikes, -got.samples[:, names.list().index("loglike_global_signal")], rtol=1e-7)
    assert got.ranges.getLower("fX") == pytest.approx(run.problem.prior.distributions["fX"].support[0])
    assert got.ranges.getUpper("Tmin_vir") == pytest.approx(run.problem.prior.distributions["Tmin_vir"].support[1])
    assert got.ranges.getLower("double") is None
    # The folder still has one chain for our own commands.
    assert find_root(folder).name == "chain"
    assert read_chain(folder).log10 == {"fX", "Tmin_vir"}
    assert read_chain(folder / "chain_getdist").samples.get_weights().max() > 0
