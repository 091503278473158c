"""The data of a run: read from a file, or created as a mock."""

import warnings

import numpy as np

from lstmfit.config import Data, Mock, RunConfig
from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.gsdata import is_hdf5, read_gsdata
from lstmfit.datasets.spectrum import Spectrum, read_public_spectrum, read_spectrum
from lstmfit.emulator.emulator import shipped_test_set
from lstmfit.errors import InputError, listed, naming, one_line
from lstmfit.likelihoods.noise import White
from lstmfit.parameters import to_array
from lstmfit.schema import LARGEST
from lstmfit.spectrum_emulator import SpectrumEmulator

BRIGHTEST = 1e12
"""Upper limit of temperatures in mK: brighter than any sky, and small enough to preserve the digits of the signal."""


def make_data(config: RunConfig, signal) -> dict[str, Spectrum]:
    """Read the data, or create mocks: the true signal, a foreground, and noise from the seed of the mock.

    Parameters
    ----------
    config : RunConfig
        The run file.
    signal : Signal
        Signal, which defines the grid of a mock.

    Returns
    -------
    dict of str to Spectrum
        The spectra by name.

    Raises
    ------
    InputError
        A file cannot be read, a mock cannot be made, or several mocks have different signals.
    """
    mock_of(config)
    seeds = [data.mock.seed for data in config.data.values() if data.mock is not None]
    if len(set(seeds)) < len(seeds):
        warnings.warn("data: mocks of the same seed have the same noise; give each spectrum its own seed", stacklevel=2)
    spectra = {}
    for name, data in config.data.items():
        with naming(".".join(config.data_places[name]), "data"):
            made = read_data(data) if data.mock is None else selected(data, _make_mock(config, data, signal))
            spectra[name] = made
    return spectra


def read_data(data: Data) -> Spectrum:
    """Read the spectrum of a data block that names a file or a public spectrum.

    Raises
    ------
    InputError
        As `read_spectrum`, `read_gsdata` and `read_public_spectrum`.
    """
    if data.public is not None:
        return selected(data, read_public_spectrum(data.public))
    selection = {key: value for key in ("load", "time", "lst") if (value := getattr(data, key)) is not None}
    if is_hdf5(data.file):
        if data.given_columns is not None or data.given_unit is not None:
            raise InputError(f"data: {data.file} is a GSData file; remove columns and unit")
        return selected(data, read_gsdata(data.file, **selection))
    if selection:
        key = next(iter(selection))
        raise InputError(f"data: {key} selects from a GSData file, but {data.file} is a table; remove it")
    return selected(data, read_spectrum(data.file, data.given_columns, data.given_unit))


def selected(data: Data, spectrum: Spectrum) -> Spectrum:
    """Channels in the band, averaged in bins, as the run file requests."""
    if data.band is not None:
        spectrum = spectrum.cut(*data.band)
    return spectrum if data.bin is None else spectrum.binned(data.bin)



def mock_of(config: RunConfig) -> Mock | None:
    """The mock whose signal is that of all mocks; None if there is no mock.

    Raises
    ------
    InputError
        Two mocks have different signals.
    """
    mocks = {name: data.mock for name, data in config.data.items() if data.mock is not None}
    first = next(iter(mocks.values()), None)
    for name, mock in mocks.items():
        for key in ("theta", "test_signal", "source"):
            if getattr(mock, key) != getattr(first, key):
                raise InputError(
                    f"data.{next(iter(mocks))}.mock and data.{name}.mock have different "
                    f"{'from' if key == 'source' else key}, but several spectra have one signal; give both the same"
                )
    return first


def _make_mock(config, data, signal):
    mock = data.mock
    if mock.test_signal is not None:
        _, true = _test_signal(config, signal, mock.test_signal)
    elif mock.source == "emulator" or config.signal is not None:
        theta = true_theta(config, signal)
        _check_trained(config, signal, theta)
        true = np.array(signal(theta), dtype=float)
    else:
        true = simulate_truth(config, signal)["signal"]
    frequency, weight = redshift_to_frequency(signal.redshifts), np.ones(len(true))
    sky = true
    if mock.foreground is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            sky = true + mock.foreground.evaluate(frequency, SpectrumEmulator, data.band)
    if not np.isfinite(sky).all():
        raise InputError(
            "data.mock: the sum of signal and foreground is not finite at these parameters; change theta or the "
            "coefficients of the foreground"
        )
    rng = np.random.default_rng(mock.seed)
    noise = White(sigma=mock.noise) if mock.has_white_noise else mock.noise
    noise_drawn = noise.build(Spectrum(frequency, sky, weight)).draw(weight, rng)
    if not (np.abs(sky + noise_drawn) <= BRIGHTEST).all():
        raise InputError(
            f"data.mock: temperatures reach {np.abs(sky + noise_drawn).max():.2g} mK, but at most {BRIGHTEST:.0e} mK "
            "is allowed; reduce the noise or the coefficients of the foreground"
        )
    return Spectrum(frequency, sky + noise_drawn, weight, true)


def _check_trained(config, signal, theta):
    """Check that the truth of an emulated mock is within the training range, because the signal is wrong outside."""
    if signal.emulator is None or config.extrapolate:
        return
    outside = signal.emulator.outside(theta)
    for parameter, value in zip(signal.parameters, theta):
        if parameter.name in outside:
            raise InputError(
                f"data.mock.theta: {parameter.name} is {value:g}, but the emulator was trained on {parameter.min:g}.."
                f"{parameter.max:g}; change the value, use from: simulator, or set extrapolate: true"
            )


def simulate_truth(config: RunConfig, signal) -> dict[str, np.ndarray]:
    """Outputs by name at a mock's true parameters, by the simulator.

    Raises
    ------
    InputError
        It is not known which simulator, its grid is another, or it fails at these parameters.
    """
    from lstmfit.simulators import SimulationError, load_once, recorded_simulator
    from lstmfit.simulators.protocol import outputs_of

    name, remedy = config.simulator, "set data.mock.from: emulator"
    if name is None:
        if signal.emulator is None:
            raise InputError(f"data.mock.from is simulator, but {signal.name} is an analytic formula; {remedy}")
        name = recorded_simulator(signal.emulator, remedy)
    simulate = load_once(name)
    if len(simulate.redshifts) != len(signal.redshifts) or not np.allclose(simulate.redshifts, signal.redshifts):
        raise InputError(f"mock from simulator: {name} and {signal.name} have different redshift grids; {remedy}")
    try:
        outputs = outputs_of(simulate(true_theta(config, signal)))
    except Exception as error:
        # A simulator may raise anything outside its range; the mistake is in the run file.
        what = error if isinstance(error, SimulationError) else f"{name} failed with {type(error).__name__} ({error})"
        raise InputError(f"data.mock.theta: {one_line(what)}; choose other true parameters") from error
    missing = [output for output in signal.layout if output not in outputs]
    if missing:
        raise InputError(f"mock from simulator: {name} does not give {listed(missing)}; {remedy}")
    return outputs


def true_theta(config: RunConfig, signal) -> np.ndarray:
    """True physical parameters (n_params,) of the signal of the mocks."""
    mock = mock_of(config)
    if mock.theta is not None:
        theta = to_array(mock.theta, signal.parameters)
        for i, (parameter, value) in enumerate(zip(signal.parameters, theta)):
            if value == 0 and parameter.zero is not None:
                theta[i] = value = parameter.zero
            if not abs(value) <= LARGEST or (parameter.log and value <= 0):
                above = " above zero" if parameter.log else ""
                raise InputError(f"data.mock.theta: {parameter.name} is {value:g}; give a finite number{above}")
        return theta
    return _test_signal(config, signal, mock.test_signal)[0]


def true_parameters(config: RunConfig, signal, uses, names) -> dict[str, float]:
    """True values of a mock's parameters by name, including foreground and noise; empty for real data.

    Parameters
    ----------
    config : RunConfig
        The run file.
    signal : Signal
        The signal.
    uses : dict of str to Use
        See `lstmfit.spectra.find_uses`.
    names : dict of str to dict of str to str
        See `lstmfit.spectra.name_parameters`.
    """
    if mock_of(config) is None:
        return {}
    truth = {p.name: float(v) for p, v in zip(signal.parameters, true_theta(config, signal))}
    own: dict[str, float] = {}
    ambiguous = set()
    for name, block in config.spectrum_blocks.items():
        mock = config.data[uses[name].data].mock
        for plain, value in ({} if mock is None else _own_truth(mock, block)).items():
            # Names of a foreground that the fit has with fewer terms are as plain as those of a single spectrum.
            known = names[name].get(plain, plain if uses[name].label is None else f"{plain}_{uses[name].label}")
            if own.setdefault(known, value) != value:
                ambiguous.add(known)
    return truth | {name: value for name, value in own.items() if name not in ambiguous}


def _own_truth(mock, block):
    """True values of the parameters of a spectrum by their names in its likelihood."""
    made, fitted, truth = mock.foreground, block.foreground, {}
    if made is not None and fitted is not None and fitted.means_the_same(made.foreground):
        truth |= dict(zip(made.names(SpectrumEmulator), made.coefficients))
    if mock.has_white_noise and isinstance(block.noise, White):
        truth["sigma"] = mock.noise
    return truth


def _test_signal(config, signal, index):
    test = shipped_test_set(config.emulator.file) if config.emulator is not None else None
    if test is None:
        raise InputError(f"test_signal: {signal.name} comes without a test set; give theta instead")
    if not 0 <= index < len(test.theta):
        raise InputError(f"test_signal is {index}, but the test set has signals 0 to {len(test.theta) - 1}")
    return test.theta[index], test.signal[index].astype(float)


def draw_mock(problem, simulate, theta: np.ndarray, rng: np.random.Generator):
    """Draw mock data from the model of a run file, with the simulator instead of the emulator.

    Parameters
    ----------
    problem : Problem
        The problem. Its spectra give the channels and their weights, its other likelihoods the further data.
    simulate : Simulator
        The simulator.
    theta : numpy.ndarray
        (n,) sampled parameters, including those of foreground and noise.
    rng : numpy.random.Generator
        Random generator for the noise of all data and for a marginalised foreground, which is drawn from its prior.

    Returns
    -------
    spectra : dict of str to Spectrum
        The mock spectra, by the names of the likelihoods of spectra.
    options : dict of str to dict
        Options of the other likelihoods, with the drawn values instead of the measured ones.

    Raises
    ------
    SimulationError
        The simulator failed.
    """
    from lstmfit.simulators.protocol import SimulationError, outputs_of

    result, z = outputs_of(simulate(problem.signal_parameters(theta))), simulate.redshifts
    spectra = {}
    for name, likelihood in problem.likelihoods.items():
        if name not in problem.options:
            # From the simulator's own grid to the channels, without the emulator's in between.
            drawn = likelihood.mocked([result["signal"], problem.values(theta, name)], rng, z)
            spectra |= drawn if isinstance(drawn, dict) else {name: drawn}
    if not problem.options:
        return spectra, {}
    grid, layout = problem.signal.redshifts, problem.signal.layout
    missing = [name for name in layout if name not in result]
    if missing:
        raise SimulationError(f"the simulator does not give {listed(missing)}, as {problem.signal.name} does")
    outputs = layout.pack(
        {name: np.interp(grid, z, result[name]) if name in layout.histories else result[name] for name in layout}
    )
    options = {
        name: given | problem.likelihoods[name].mocked(problem.arguments(outputs, theta, name), rng)
        for name, given in problem.options.items()
    }
    return spectra, options
