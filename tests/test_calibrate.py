"""Calibration: mocks from the model itself, ranks that are uniform or are not, a campaign that goes on."""

import json

import numpy as np
import pytest
from test_driver import small_run

from lstmfit import config as run_file
from lstmfit.calibration import calibrate, draw_mock, summarise
from lstmfit.errors import InputError
from lstmfit.problem import build

NAMES = ("fX", "Tmin_vir")


def quick_run(**changes):
    return small_run(sampler={"polychord": {"nlive": 30, "num_repeats": 2, "seed": 1}}) | changes


def write_mocks(folder, ranks):
    (folder / "mocks").mkdir(parents=True)
    for i, pair in enumerate(ranks):
        z = dict(zip(NAMES, (4.0 * (np.array(pair) - 0.5)).tolist()))
        content = {"rank": dict(zip(NAMES, map(float, pair))), "z": z}
        (folder / "mocks" / f"{i:05d}.json").write_text(json.dumps(content))


def test_uniform_ranks_pass_and_others_do_not(tmp_path, rng):
    ranks = np.column_stack([rng.uniform(size=200), rng.beta(2.5, 1.0, size=200)])
    write_mocks(tmp_path, ranks)
    got = summarise(tmp_path)
    good, bad = (got["parameters"][name] for name in NAMES)
    assert good["rank_ks_p"] > 0.01
    assert good["coverage_68_low"] <= good["coverage_68"] <= good["coverage_68_high"]
    assert bad["rank_ks_p"] < 1e-6
    assert bad["z_mean"] > 5 * bad["z_mean_err"]
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "calibration.json").read_text()) == got
    assert summarise(tmp_path, 50)["n"] == 50


def test_binomial_bands(tmp_path):
    write_mocks(tmp_path, np.random.default_rng(1).uniform(size=(100, 2)))
    p = summarise(tmp_path)["parameters"]["fX"]
    assert (p["coverage_68_low"], p["coverage_68_high"]) == pytest.approx((0.59, 0.77), abs=0.011)


def test_mocks_are_drawn_from_the_model_with_its_own_noise_and_foreground(rng):
    block = {
        "noise": {"model": "white", "sigma": "free"},
        "foreground": {"model": "log_polynomial", "terms": 3, "marginalise": False, "scale": 100.0, "reference": 75},
    }
    params = small_run()["params"] | {"sigma": {"prior": {"dist": "loguniform", "min": 1, "max": 100}}}
    config = run_file.load(small_run(likelihood={"global_signal": block}, params=params))
    template = build(config)
    theta = template.prior.sample(1, rng)[0]
    theta[template.names.index("sigma")] = 7.0
    made = [draw_mock(config, template, "echo21", theta, rng) for _ in range(30)]
    own = np.array(template.values(theta))
    sky = made[0].truth + template.likelihood.model(np.zeros(451), own)
    residual = np.array([m.temperature - sky for m in made])
    assert residual.std() == pytest.approx(7.0, rel=0.03)
    assert abs(residual.mean()) < 0.3


def test_a_campaign_goes_on_and_refuses_another(tmp_path):
    first = calibrate(quick_run(), tmp_path / "c", 2, points=50, jobs=2, seed=3)
    assert first["n"] == 2
    assert first["emulation"]["n"] == 2
    assert first["emulation"]["D_KL_mean"] < 0.1
    before = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "c" / "mocks").iterdir()}
    (tmp_path / "c" / "mocks" / "00001.json").unlink()
    calls = []
    again = calibrate(quick_run(), tmp_path / "c", 2, points=50, jobs=1, seed=3, progress=lambda d, n: calls.append(d))
    assert calls == [2]
    # Mock 1 is the same again, whoever makes it.
    assert again == first
    assert (tmp_path / "c" / "mocks" / "00000.json").stat().st_mtime_ns == before["00000.json"]
    assert not (tmp_path / "c" / "work").exists()
    with pytest.raises(InputError, match="holds a campaign with another seed"):
        calibrate(quick_run(), tmp_path / "c", 2, points=50, seed=4)
    with pytest.raises(InputError, match="holds a campaign with another run"):
        calibrate(small_run(), tmp_path / "c", 2, points=50, seed=3)


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="n is 0; at least one mock"):
        calibrate(quick_run(), tmp_path / "c", 0)
    with pytest.raises(InputError, match="points is 3; at least 25"):
        calibrate(quick_run(), tmp_path / "c", 1, points=3)
    run = quick_run()
    run["likelihood"] = run["likelihood"] | {"planck_tau": {}}
    with pytest.raises(InputError, match="take planck_tau out of the run file"):
        calibrate(run, tmp_path / "c", 1, jobs=1)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not of a calibration"):
        calibrate(quick_run(), tmp_path / "thesis", 1, jobs=1)
    (tmp_path / "none" / "mocks").mkdir(parents=True)
    (tmp_path / "none" / "mocks" / "00000.json").write_text('{"failed": "no finite signal"}')
    with pytest.raises(InputError, match="none of 1 mocks could be fitted; the first: no finite signal"):
        summarise(tmp_path / "none")
