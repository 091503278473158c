"""What a run file can ask for that has no meaning: one line, of expressions, priors, mocks, noise and likelihoods."""

import sys
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstmfit.checks import check_run
from lstmfit.config import load
from lstmfit.datasets.spectrum import Spectrum
from lstmfit.errors import InputError
from lstmfit.likelihoods import GlobalSignal, foregrounds, noise
from lstmfit.likelihoods.signal_error import SignalError
from lstmfit.priors import compile_expression, load_set, make_distribution
from lstmfit.priors.expressions import names_in
from lstmfit.problem import build

THETA = {"fX": 0.1, "fLy": 1.0, "fesc": 0.05, "Tmin_vir": 1e4, "tstar": 0.5, "sLy": 2.64, "wX": 1.5}


def run(noise=None, more=None, mock=None, **top):
    return {
        "emulator": "echo21",
        "data": {"mock": {"theta": THETA, "from": "emulator", "noise": 25, "seed": 2} | (mock or {})},
        "likelihood": {"global_signal": {"noise": noise or {"sigma": 25}}} | (more or {}),
    } | top


def refused(match, call, *args, **kwargs):
    with pytest.raises(InputError, match=match) as error:
        call(*args, **kwargs)
    message = str(error.value)
    assert len(message) < 400
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min(a)", "min takes 2 or more arguments, not 1"),
        ("min()", "min takes 2 or more arguments, not 0"),
        ("exp()", "exp takes 1 argument, not 0"),
        ("sqrt(a, b)", "sqrt takes 1 argument, not 2"),
        ("log(a, b, 2)", "log takes 1 or 2 arguments, not 3"),
        ("exp(x=a)", "is not allowed"),
        ("exp(*a)", "is not allowed"),
        ("a if b else 1", "is not allowed"),
        ("a < b", "is not allowed"),
        ("True", "is not allowed"),
        ("2j*a", "is not allowed"),
        ("a.b", "is not allowed"),
        ("'x'", "is not allowed"),
        ("open(a)", "unknown function 'open'"),
        ("2(3)", "is not allowed"),
        ("a +", "cannot be read"),
        ("", "cannot be read"),
        ("a\x00", "cannot be read"),
        ("9" * 400, "an integer of more than 30 digits is not a number below"),
        ("1e400", "inf is not a number below"),
        ("(" * 300 + "a" + ")" * 300, "cannot be read"),
        ("-" * 200 + "a", "nested more than 50 levels"),
        ("+".join(["a"] * 300), "nested more than 50 levels"),
        ("+".join(["a"] * 3000), "has 5999 characters, but at most 2000"),
        ("what", "unknown name 'what'; the parameters are a, b"),
    ],
)
def test_expressions_that_mean_nothing(text, message):
    refused(message, compile_expression, text, ("a", "b"))


@pytest.mark.parametrize(
    "text",
    ["a/0", "0**-a", "(-a)**0.5", "((-a)**0.5)**2", "log(0)", "log(-a)", "exp(1000)", "1e99**a**9", "sqrt(-1)",
     "log(a, 1)", "1e90*1e90*1e90*1e90 - 1e90*1e90*1e90*1e90", "tan(1e90)*0 + 1/0"],
)  # fmt: skip
def test_arithmetic_without_a_result_is_nan(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(compile_expression(text, ("a", "b"))(np.array([3.0, 0.0])))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab01.+-*/()e,^~ <>=[]{}'_lmogxp\n\t", max_size=40) | st.text(max_size=30))
def test_any_text_is_an_expression_or_refused(text):
    try:
        value = compile_expression(text, ("a", "b"))(np.array([0.3, -2.0]))
    except InputError as refusal:
        message = str(refusal)
        assert len(message) < 400
    else:
        assert isinstance(value, float)
        assert names_in(text) <= {"a", "b"}


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.lists(st.floats(), max_size=3),
    st.sampled_from([10**400, -(10**400), "1e-3", 1e308, 5e-324, {}]),
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(st.sampled_from("dist min max loc scale s a b df sorted nonsense".split()), VALUES, max_size=4),
    st.sampled_from([None, "uniform", "loguniform", "norm", "truncnorm", "lognorm", "beta", "gamma", "t", "cauchy"]),
)  # fmt: skip
def test_any_prior_is_proper_or_refused(spec, dist):
    spec = spec if dist is None else spec | {"dist": dist}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            prior = make_distribution(spec)
        except InputError as refusal:
            message = str(refusal)
            assert len(message) < 400
            return
        values = np.array([prior.ppf(u) for u in (1e-6, 0.5, 1 - 1e-6)], dtype=float)
    assert np.isfinite(values).all()
    assert make_distribution(prior.spec()) == prior


@pytest.mark.parametrize("spec", [3, "uniform", [1, 2], None])
def test_a_prior_is_a_mapping(spec):
    refused("give a mapping such as", make_distribution, spec)


def test_priors_of_cobaya_in_a_run_file():
    params = {
        "fX": {"prior": {"dist": "loguniform", "a": 1e-2, "b": 1.0}, "ref": {"dist": "norm", "loc": 0.1, "scale": 0.1},
               "proposal": 0.1, "latex": "f_X"},
        "sLy": {"prior": [1, 3], "ref": 2, "drop": True},
    }  # fmt: skip
    with pytest.warns(UserWarning, match="Cobaya's ref, proposal and drop are ignored"):
        config = load(run(params=params))
    problem = build(config)
    assert problem.prior.distributions["fX"].support == (1e-2, 1.0)
    assert problem.prior.distributions["sLy"].support == (1.0, 3.0)
    refused(r"prior is \[1, 2, 3\]; give \[min, max\]", load, run(params={"sLy": {"prior": [1, 2, 3]}}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fX: {prior: {min: 1e-3, max: 1}}\nfX: {prior: {min: 1, max: 2}}", "appears twice"),
        ("fX: 3\nfX: 4", "appears twice"),
        ("- 1", "is not a mapping of parameters"),
        ("", "is not a mapping of parameters"),
        ("fX: [1]", "priors: .*fX"),
        ("fX: {prior: {min: x, max: 1}}", "'x' is not a number"),
        ("fX: {prior: 3}", "priors: .*fX.prior"),
        ("fX: {pryor: {min: 0, max: 1}}", "unknown|not permitted"),
        ("fX: {value: true}", "fX"),
        ("fX: {value: min(1)}", "min takes 2 or more"),
        ("a: &a [1]\nfX: *b", "is not valid YAML"),
        ("sLy: {prior: {min: .nan, max: 1}}", "nan is not a finite number"),
        ("other: 3", "has none of the parameters of this run"),
    ],
)
def test_parameter_sets(tmp_path, text, message):
    path = tmp_path / "set.yaml"
    path.write_text(text)
    refused(message, lambda: build(load(run(priors=str(path)))))


def test_a_set_reads_numbers_as_a_run_file_does(tmp_path):
    path = tmp_path / "set.yaml"
    path.write_text("fX: {prior: {dist: loguniform, min: 1e-3, max: 1e1}}")
    assert load_set(path)["fX"]["prior"] == {"dist": "loguniform", "min": 1e-3, "max": 10.0}
    assert build(load(run(priors=str(path)))).prior.distributions["fX"].support == (1e-3, 10.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0, 10**400, True, "x", None])
def test_a_truth_that_is_no_number(value):
    refused("fX", lambda: build(load(run(mock={"theta": THETA | {"fX": value}, "from": "emulator"}))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mock": {"noise": 1e200}}, "noise|not a finite"),
        ({"mock": {"noise": 1e90}}, "data.mock: temperatures reach .* mK, .* reduce the noise"),
        ({"mock": {"foreground": {"reference": 75, "coefficients": [1e90]}}}, "data.mock: temperatures reach"),
        ({"mock": {"foreground": {"model": "hills", "reference": 75, "coefficients": [1, 9e4, 1, 1, 1]}}}, "data.mock"),
        ({"noise": {"sigma": 1e-9}}, "noise: sigma is 1e-09 mK; give a number from 1e-06"),
        ({"noise": {"sigma": 1e50}}, r"give a number from 1e-06 to 1e\\+12 mK"),
        ({"noise": {"model": "student_t", "sigma": 25, "dof": 1e-9}}, "dof is 1e-09; give a number from 0.001"),
        ({"noise": {"model": "radiometer", "channel_width": 1e-90, "integration_time": 1e-9, "sky":
                    {"temperature": 1e3, "frequency": 75, "index": -2.5}}}, "check channel_width"),
        ({"noise": {"model": "radiometer", "channel_width": 1, "integration_time": 1, "sky":
                    {"temperature": 1e3, "frequency": 75, "index": -900}}}, "the radiometer equation gives"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_mocks_and_noise_beyond_any_sense(changes, message):
    refused(message.replace("\\\\", "\\"), lambda: build(load(run(**changes))))


@pytest.mark.parametrize(
    ("foreground", "message"),
    [
        ({"scale": 1e-20}, "scale .* is 1e-20 K; give 1e-12 to 1e"),
        ({"scale": 1e20}, r"scale .* is 1e\+20"),
        ({"scale": [1, 1, 1, 1, 1e-30]}, "scale .* is 1e-30"),
        ({"scale": [1, 2]}, "scale has 2 numbers for 5 terms"),
        ({"mean": 1e20}, "mean .*at most"),
        ({"mean": float("nan")}, "mean"),
        ({"mean": [1, float("inf"), 0, 0, 0]}, "mean"),
        ({"reference": 75e6}, "reference is 7.5e.07 MHz, but the data span"),
        ({"reference": 0.0000001}, "give a frequency in MHz near the band"),
        ({"terms": 90}, "not independent|fewer"),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_foregrounds_beyond_any_sense(foreground, message):
    def make():
        content = run()
        content["likelihood"]["global_signal"]["foreground"] = foreground
        build(load(content))

    refused(message, make)


def test_the_same_from_python(rng):
    nu = np.linspace(60.0, 90.0, 40)
    refused("reference is 8e.09 MHz", foregrounds.Sinusoid(reference=8e9).build, nu)
    args = Spectrum(nu, np.zeros(40), np.ones(40)), np.linspace(5, 50, 451)
    block = {"noise": {"sigma": 25}, "foreground": {"terms": 3, "mean": float("nan")}}
    refused("foreground.mean: nan is not a finite number", GlobalSignal.from_options, block, *args)
    refused("sigma is nan mK", GlobalSignal, *args, noise.Noise(float("nan")))
    refused("dof is inf", GlobalSignal, *args, noise.Noise(1.0, student=True, dof=float("inf")))
    refused("emulator_error is nan mK", GlobalSignal, *args, noise.Noise(1.0), error=SignalError(channel=float("nan")))
    refused("emulator_error is nan times", GlobalSignal, *args, noise.Noise(1.0), error=SignalError(fraction=np.nan))


def test_files_of_noise_that_hold_something_else(tmp_path):
    def make(name, write, message, kind="channels"):
        path = tmp_path / name
        write(path)
        of_file(message, path, kind)

    def of_file(message, path, kind="channels"):
        refused(message, noise.NOISE[kind](file=str(path)).build, Spectrum(*np.ones((3, 3))))

    def text(content):
        return lambda path: path.write_bytes(content)

    def npy(array):
        return lambda path: np.save(path, array, allow_pickle=True)

    make("a.txt", text(b""), "has shape .0, 1. and type|is not a table")
    make("b.txt", text(b"1\n2\nx\n"), "b.txt is not a table of numbers")
    make("c.txt", text(b"1\n2\xff\n3"), "c.txt is not a table of numbers")
    make("d.txt", text(b"1\n2\n3\n4"), "has 4 rows, but 3 channels are fitted")
    make("e.txt", text(b"1\n2\nnan"), "has a sigma of nan mK in row 2")
    make("f.txt", text(b"1\n-2\n3"), "has a sigma of -2 mK in row 1")
    make("g.txt", text(b"1\n1e-9\n3"), "has a sigma of 1e-09 mK in row 1")
    make("h.npy", text(b""), "h.npy is not a table of numbers")
    make("i.npy", npy(np.array([{}, 1, 2], dtype=object)), "i.npy is not a table of numbers")
    make("j.npy", npy(np.float64(3.0)), r"has shape \(\) and type float64; give a column or a table")
    make("k.npy", npy(np.ones((2, 2, 2))), r"has shape \(2, 2, 2\)")
    make("l.npy", npy(np.array(["1", "2", "3"])), "type <U1; give a column or a table of real numbers")
    make("m.npy", npy(np.ones(3, dtype=complex)), "type complex128")
    make("o.npy", npy(np.array([True] * 3)), "type bool")
    np.savez(tmp_path / "z.npz", a=np.ones(3))
    (tmp_path / "z.npz").rename(tmp_path / "p.npy")
    of_file("p.npy is not a table of numbers", tmp_path / "p.npy")
    header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }"
    make("q.npy", text(header.ljust(127) + b"\n"), "q.npy is not a table of numbers")
    make("r.npy", npy(np.full((3, 3), np.nan)), "not finite", "covariance")
    make("s.npy", npy(np.ones((3, 2))), "s.npy is 3 x 2, but 3 channels are fitted", "covariance")
    of_file("no file", tmp_path / "none.txt")
    of_file("no file", tmp_path)
    of_file("noise file", "a\0b")


OWN = """
import numpy as np

class Raises:
    outputs, names, params = ("signal",), ("wX",), {}
    def __init__(self, redshifts, after=0, how="raise"):
        self.how = how
    def __call__(self, signal, values):
        return {"raise": lambda: 1 / 0, "text": lambda: "high", "none": lambda: None, "array": lambda: np.zeros(3),
                "exit": lambda: np.linalg.inv(np.zeros((2, 2)))}[self.how]()

class Broken:
    def __init__(self, redshifts, **options):
        raise KeyError("file of mine")

class Text:
    outputs, names = "signal", ()
    def __init__(self, redshifts):
        pass
    def __call__(self, *a):
        return 0.0
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_bad.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_bad", None)


@pytest.mark.parametrize(
    ("how", "said"),
    [("raise", "ZeroDivisionError: division by zero"), ("text", "ValueError: could not convert"), ("none", "TypeError"),
     ("array", "TypeError"), ("exit", "LinAlgError: Singular matrix")],
)  # fmt: skip
def test_a_likelihood_of_the_users_that_raises(own, rng, how, said):
    problem = build(load(run(more={"own_bad.Raises": {"how": how}})))
    theta = problem.prior.sample(1, rng)[0]
    at = rf"likelihood.own_bad.Raises failed \({said}.*\) at fX={theta[0]:.6g}, fLy={theta[1]:.6g}"
    refused(at, problem.loglikelihood, theta)
    refused(at, problem.loglikelihood_batch, theta[None])


def test_a_likelihood_of_the_users_that_cannot_be_built(own):
    refused("own_bad.Broken: KeyError: 'file of mine'", lambda: build(load(run(more={"own_bad.Broken": {}}))))
    refused("outputs is 'signal'; give a tuple of names", lambda: build(load(run(more={"own_bad.Text": {}}))))


@pytest.mark.parametrize("name", ["a b", "x" * 300, "fX,fLy", "2x", "tab\there", "exp", "e", ""])
def test_names_that_no_column_can_have(name):
    params = {name: {"prior": {"min": 0, "max": 1}}, "wX": {"value": "1"}, "d": {"derived": "sLy"}}
    refused("params", lambda: build(load(run(params=params))))
    refused("params|not a valid name", lambda: build(load(run(params={name: {"derived": "sLy"}}))))


def test_draws_without_a_likelihood_are_reported():
    with pytest.warns(UserWarning, match=r"not finite at 200 of 200 prior draws: wX is outside 0.5..2.5 at 200"):
        report = check_run(run(params={"wX": {"value": "-fX"}}), 200)
    assert report["finite_fraction"] == 0.0
    assert report["best_loglike_of_draws"] is None
    with pytest.warns(UserWarning, match=r"prior draws: wX is outside"):
        report = check_run(run(params={"wX": {"value": "0.4 + sLy"}}), 200)
    assert 0.0 < report["finite_fraction"] < 1.0
    assert np.isfinite(report["best_loglike_of_draws"])
    with pytest.warns(UserWarning, match=r"prior draws: wX is outside 0.5..2.5 at 200"):
        assert check_run(run(params={"wX": {"value": "log(-fX)"}}), 200)["finite_fraction"] == 0.0


def test_a_run_with_everything_fixed():
    problem = build(load(run(params=THETA)))
    assert problem.names == ()
    value, derived = problem.loglikelihood(problem.prior_transform(np.empty(0)))
    assert np.isfinite(value)
    assert derived == (value,)
    assert problem.loglikelihood_batch(np.empty((2, 0))).tolist() == [value, value]
    assert check_run(run(params=THETA)) == {"parameters": 0, "channels": 451, "logZ": value}
