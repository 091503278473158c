"""The page of an emulator in a real browser. Slow only because of what is to be installed: `make test-ci` does it."""

import base64
import shutil

import numpy as np
import pytest
from helpers import small_run, tiny_run
from networks import PARAMETERS, draw_theta, random_network
from test_explorer import hostile_emulator

from lstmfit import Emulator, config
from lstmfit.analysis.chains import read_run
from lstmfit.constants import redshift_to_frequency
from lstmfit.driver import fit
from lstmfit.emulator.emulator import shipped
from lstmfit.explorer import write_page
from lstmfit.yaml_files import parse_yaml

pytestmark = [pytest.mark.slow, pytest.mark.ci]

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-ci does it")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("there is no Chromium; make test-ci installs it, or: apt-get install chromium-headless-shell")
    with playwright.sync_playwright() as started:
        # Chromium's sandbox does not work for root, nor in most containers; the page is our own.
        made = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def opened(browser, tmp_path):
    """A function that opens a page; at the end, no page had an error or asked for another file."""
    seen, contexts = [], []

    def open_page(emulator, run=None, **options):
        path = write_page(tmp_path / f"{len(contexts)}.html", emulator, run)
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: seen.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on("request", lambda request: request.url == path.as_uri() or seen.append(f"request: {request.url}"))
        page.goto(path.as_uri())
        drawn(page)
        return page

    open_page.seen = seen
    yield open_page
    for context in contexts:
        context.close()
    assert seen == []


def drawn(page):
    """Wait until the page has drawn, which it does once per frame; return the path of the signal."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.locator("#figure-signal path.curve").get_attribute("d")


def random_theta(emulator, rng, n):
    u = rng.uniform(size=(n, len(emulator.parameters)))
    low, high = (np.array([getattr(p, end) for p in emulator.parameters]) for end in ("min", "max"))
    log = np.array([p.log for p in emulator.parameters])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(log, low * (high / low) ** u, low + (high - low) * u)


def assert_equal(page, emulator, theta):
    """All outputs but tables, to 0.01 mK or to 1e-5 of what other outputs vary."""
    expected = emulator.histories(theta)
    found = page.evaluate("theta => theta.map(t => network.evaluate(t))", theta.tolist())
    for i, outputs in enumerate(found):
        assert set(outputs["histories"]) == set(emulator.layout.histories)
        assert set(outputs["scalars"]) == set(emulator.layout.scalars)
        for name, values in (outputs["histories"] | outputs["scalars"]).items():
            values = list(values.values()) if isinstance(values, dict) else values
            tolerance = 0.01 if name == "signal" else 1e-5 * max(1.0, np.ptp(expected[name]))
            np.testing.assert_allclose(values, expected[name][i], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", shipped())
def test_numbers_equal_those_of_python(name, opened, rng):
    emulator = Emulator.load(name)
    theta = np.array(random_theta(emulator, rng, 20))
    assert_equal(opened(emulator), emulator, theta)


@pytest.mark.parametrize(
    "sizes",
    [
        {"encoder": ()},
        {"encoder": (9, 6), "layers": 3},
        {"layers": 1, "steps": 45},
        {"encoder": (6, 9), "blocks": 2},
        {"layers": 0, "steps": 1, "blocks": 3},
        {"units": 5, "steps": 4, "histories": ("signal", "a", "toString"), "scalars": ("tau", "constructor")},
        {"histories": ("signal",), "scalars": ()},
    ],
)
def test_any_network_of_ours_runs_in_the_page(sizes, opened, rng):
    architecture, scaling, weights = random_network(rng, **sizes)
    emulator = Emulator(architecture, scaling, weights, np.linspace(5.0, 50.0, 45), PARAMETERS, engine="numpy")
    assert_equal(opened(emulator), emulator, draw_theta(rng, 20))


def test_all_halves_are_decoded(opened):
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    block = {"type": "f2", "base64": base64.b64encode(halves.astype("<f2").tobytes()).decode()}
    page = opened(Emulator.load("21cmgem"))
    found = page.evaluate("block => Array.from(decodeArray(block))", block)
    assert np.array_equal(found, halves.astype(float))


def typed_in(page, emulator, theta):
    """Type parameters into the fields."""
    for i, value in enumerate(theta):
        field = page.locator(f"#value-{i}")
        field.fill(repr(float(value)))
        field.press("Tab")
    return drawn(page)


@pytest.mark.parametrize("name", shipped())
def test_parameters_that_are_typed_are_those_drawn(name, opened, rng):
    emulator = Emulator.load(name)
    page, theta = opened(emulator), random_theta(emulator, rng, 1)[0]
    path = typed_in(page, emulator, theta)
    histories = emulator.histories(theta)
    signal, nu = histories["signal"], redshift_to_frequency(emulator.redshifts)
    at = int(np.argmin(signal))
    expected = f"−{-signal[at]:.2f} mK at {nu[at]:.2f} MHz (z = {emulator.redshifts[at]:.2f})"
    depth, where = page.locator("#minimum").inner_text().split(" mK")
    assert float(depth.replace("−", "-")) == pytest.approx(signal[at], abs=0.011)
    assert expected.endswith(where)
    for scalar in emulator.layout.scalars:
        shown = page.locator(f"#scalar-{scalar}").inner_text().replace("−", "-")
        assert float(shown) == pytest.approx(histories[scalar], rel=1e-3)
    # The path of the signal, from its pixels back to mK and MHz.
    points = np.array([pair.split() for pair in path[1:].split("L")], dtype=float)
    assert len(points) == len(signal)
    pixels = np.array(page.evaluate("values => values.map(v => figures[0].y(v))", signal.tolist()))
    np.testing.assert_allclose(points[:, 1], pixels, atol=0.02)
    for i, history in enumerate(emulator.layout.histories):
        assert page.locator("figure").nth(i).get_attribute("id") == f"figure-{history}"


def test_a_slider_redraws(opened):
    emulator = Emulator.load("echo21")
    page = opened(emulator)
    slider, before = page.locator('input[type="range"]').nth(0), drawn(page)
    slider.focus()
    for _ in range(30):
        page.keyboard.press("ArrowLeft")
    after = drawn(page)
    assert after != before
    value = page.evaluate("theta[0]")
    middle, top = 10**-0.5, 1e5**0.03
    assert value == pytest.approx(middle / top, rel=1e-4)
    assert float(page.locator("#value-0").input_value()) == value
    assert slider.get_attribute("aria-valuetext") == repr(value)
    # With the mouse, to the end of the range.
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2)
    assert drawn(page) != after
    assert page.evaluate("theta[0]") == emulator.parameters[0].max
    page.get_by_role("button", name="Reset").click()
    assert drawn(page) == before


def test_many_moves_in_a_frame_are_drawn_once(opened):
    page = opened(Emulator.load("21cmgem"))
    calls = page.evaluate("""
        new Promise(done => {
            const evaluate = network.evaluate.bind(network);
            let calls = 0;
            network.evaluate = theta => { calls++; return evaluate(theta); };
            const slider = document.querySelector("input[type=range]");
            for (let i = 0; i < 100; i++) {
                slider.value = 10 * i;
                slider.dispatchEvent(new Event("input"));
            }
            requestAnimationFrame(() => requestAnimationFrame(() => done(calls)));
        })""")
    assert calls == 1


@pytest.mark.parametrize("text", ["abc", "", "-1", "0", "1e999"])
def test_what_is_no_value_is_said_and_not_drawn(text, opened):
    page = opened(Emulator.load("echo21"))
    before, field = drawn(page), page.locator("#value-0")
    field.fill(text)
    field.press("Tab")
    assert drawn(page) == before
    assert field.get_attribute("aria-invalid") == "true"
    assert page.locator(".note").nth(0).inner_text() == f"“{text}” is not a positive number"
    field.fill("0.5")
    field.press("Tab")
    assert drawn(page) != before
    assert field.get_attribute("aria-invalid") is None
    assert not page.locator(".note").nth(0).is_visible()


def test_values_outside_the_range_are_said_to_be(opened):
    emulator = Emulator.load("21cmgem")
    page = opened(emulator)
    theta = random_theta(emulator, np.random.default_rng(0), 1)[0]
    theta[emulator.names.index("alpha")] = 1.6
    # A zero of fX stands for 1e-6, as in Python.
    theta[emulator.names.index("fX")] = 0.0
    typed_in(page, emulator, theta)
    notes = [note.inner_text() for note in page.locator(".note").all()]
    said = "outside the training range: the emulator extrapolates"
    assert notes == [said if name == "alpha" else "" for name in emulator.names]
    expected = emulator(theta, outside="allow")
    found = page.evaluate("Array.from(network.evaluate(theta).histories.signal)")
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("key", ["params", "theta"])
def test_the_copied_parameters_are_for_a_run_file(name, key, opened, rng):
    emulator = Emulator.load(name)
    page = opened(emulator, permissions=["clipboard-read", "clipboard-write"])
    theta = random_theta(emulator, rng, 1)[0]
    typed_in(page, emulator, theta)
    page.get_by_role("button", name=f"Copy {key}:").click()
    page.get_by_text("(copied)").wait_for()
    text = page.locator("#yaml").input_value()
    assert page.evaluate("navigator.clipboard.readText()") == text
    content = parse_yaml(text, "page")
    assert content == {key: dict(zip(emulator.names, theta, strict=True))}
    assert all(type(value) in (float, int) for value in content[key].values())
    run = small_run(emulator=name, params={})
    run["data"]["mock"]["from"] = "emulator"
    if key == "theta":
        run["data"]["mock"]["theta"] = content[key]
    else:
        run |= content
    config.validate(run, "page")


def test_nothing_may_be_loaded_or_run(opened, rng, tmp_path):
    """Neither by text from files, nor by what would get into the page in spite of that."""
    emulator = hostile_emulator(rng, tmp_path / "<script>&<!--.h5")
    page = opened(emulator)
    assert page.evaluate("window.broken") is None
    assert page.locator("h1").inner_text() == "<script>&<!--"
    assert "window.broken = 1" in page.locator("#about").inner_text()
    assert page.locator("img").count() == 0
    refused = page.evaluate("""
        new Promise(done => {
            const refused = [];
            document.addEventListener("securitypolicyviolation", event => {
                refused.push(event.effectiveDirective);
                if (refused.length === 3) done(refused);
            });
            fetch("https://example.org/").catch(() => {});
            new Image().src = "https://example.org/x.png";
            const script = document.createElement("script");
            script.textContent = "window.broken = 3";
            document.body.append(script);
        })""")
    assert sorted(refused) == ["connect-src", "img-src", "script-src-elem"]
    assert page.evaluate("window.broken") is None
    # The browser reports what it refused, and the picture as a request that it blocked.
    assert all("Content Security Policy" in line or line.startswith("request") for line in opened.seen)
    opened.seen.clear()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    sky = {"reference": 75, "coefficients": [2000.0, 10.0, -5.0]}
    mock = tiny_run()["data"]["mock"] | {"foreground": sky}
    model = {"model": "log_polynomial", "terms": 3, "reference": 75}
    content = tiny_run(
        data={"mock": mock | {"from": "emulator"}},
        likelihood={"global_signal": {"noise": {"sigma": 25}, "foreground": model}},
    )
    return read_run(fit(content, tmp_path_factory.mktemp("browser") / "a <b> run", jobs=1))


def test_the_page_of_a_run_shows_bands_and_data(opened, run):
    emulator = Emulator.load("echo21")
    page = opened(emulator, run)
    assert page.locator("h1").inner_text() == "a <b> run (echo21)"
    n, spectrum = len(emulator.redshifts), run.problem.spectra["global_signal"].spectrum
    for band in ("band95", "band68"):
        path = page.locator(f"#figures path.{band}")
        assert path.is_visible()
        assert path.get_attribute("d").count("L") == 2 * n - 1
    # 95 % enclose 68 %, which enclose the median.
    heights = page.evaluate(
        "['band95', 'band68', 'median'].map(layer => figures[0].paths[layer].getBBox()).map(b => [b.y, b.y + b.height])"
    )
    assert heights[0][0] <= heights[1][0] <= heights[2][0] <= heights[2][1] <= heights[1][1] <= heights[0][1]
    assert page.locator("#figures path.data").get_attribute("d").count("M") == len(spectrum.frequency)
    assert page.locator("#figures path.truth").get_attribute("d").count("L") == len(spectrum.frequency) - 1
    assert page.locator("#legend").inner_text().split("  ")[0]
    assert "data − mean foreground" in page.locator("#legend").inner_text()
    # The sliders begin at the best point, with the intervals of free parameters marked.
    best = run.samples.iloc[int(np.argmax(run.samples["logL"]))]
    found = page.evaluate("theta")
    for i, name in enumerate(emulator.names):
        text = page.locator(".parameter").nth(i).inner_text()
        assert ("fixed in the run" in text) == (name not in run.problem.names)
        assert page.locator(".parameter").nth(i).locator(".interval").count() == 1
        if name in run.problem.names:
            assert found[i] == best[name].item()
            assert "68 %:" in text
    assert_equal(page, emulator, np.array([found]))


def test_each_of_several_spectra_can_be_shown(opened, tmp_path):
    mock = tiny_run()["data"]["mock"] | {"from": "emulator"}
    data = {name: {"mock": mock | {"seed": i}, "band": band} for i, (name, band) in enumerate(BANDS.items())}
    likelihood = {name: {"class": "global_signal", "noise": {"sigma": 25}} for name in BANDS}
    run = read_run(fit(tiny_run(data=data, likelihood=likelihood), tmp_path / "run", jobs=1))
    page = opened(Emulator.load("echo21"), run)
    choice, seen = page.get_by_label("spectrum"), []
    for name in BANDS:
        choice.select_option(name)
        drawn(page)
        seen.append(page.locator("#figures path.data").get_attribute("d"))
        assert seen[-1].count("M") == len(run.problem.spectra[name].spectrum.frequency)
    assert seen[0] != seen[1]


BANDS = {"low": [50, 100], "high": [90, 190]}


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_to_the_side(name, scheme, opened):
    page = opened(Emulator.load(name), viewport={"width": 360, "height": 640}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator(".parameter").last.scroll_into_view_if_needed()
    # The signal stays in view, and it is not in the way of the parameter.
    signal, last = page.locator("#figure-signal").bounding_box(), page.locator(".parameter").last.bounding_box()
    assert signal["y"] >= 0
    assert last["y"] >= signal["y"] + signal["height"]


def test_the_page_follows_the_colour_scheme_and_the_width(opened):
    emulator = Emulator.load("21cmgem")
    colours = {}
    for scheme in ("light", "dark"):
        page = opened(emulator, color_scheme=scheme)
        colours[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        before = drawn(page)
        page.set_viewport_size({"width": 900, "height": 800})
        drawn(page)
        assert drawn(page) != before
    assert colours["light"] == "rgb(255, 255, 255)"
    assert colours["dark"] != colours["light"]
