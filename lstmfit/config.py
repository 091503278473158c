"""The run file: reading, validating and writing it."""

import re
import warnings
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    StrictBool,
    model_serializer,
    model_validator,
)

from lstmfit.datasets.columns import DEFAULT, check_columns
from lstmfit.emulator_source import EmulatorSource
from lstmfit.errors import InputError, did_you_mean, listed
from lstmfit.files import user_path, write_text
from lstmfit.likelihoods.base import LIKELIHOODS, find_likelihood
from lstmfit.likelihoods.foregrounds import MockForeground
from lstmfit.likelihoods.global_signal_options import GlobalSignalOptions
from lstmfit.likelihoods.noise import NOISE, NoiseBlock
from lstmfit.mistakes import known_keys, validate_block, validate_model, validate_nested
from lstmfit.priors.expressions import compile_expression, names_in
from lstmfit.sampling.samplers import SAMPLERS, sampler_class
from lstmfit.sampling.settings import SamplerSettings
from lstmfit.schema import Block, DataSeed, Index, Number, Positive, shown, to_number
from lstmfit.yaml_files import dump_yaml, read_yaml


def _mock_noise(value):
    """White noise in mK, or a noise block."""
    if isinstance(value, (dict, NoiseBlock)):
        return validate_model(NOISE, "noise", value)
    number = to_number(value)
    if not number > 0:
        raise ValueError(f"{shown(value)} is not a positive number in mK")
    return number


MockNoise = Annotated[float | SerializeAsAny[NoiseBlock], BeforeValidator(_mock_noise)]


class Mock(Block):
    """A mock observation on the emulator's grid: a signal, an optional foreground, and noise.

    Parameters
    ----------
    theta : dict of str to float, optional
        True values of all parameters of the signal. Either this or `test_signal`.
    source : {"simulator", "emulator"}
        What computes the true signal from `theta`.
    test_signal : int, optional
        Number of a signal in the test set of a shipped emulator, from 0.
    foreground : MockForeground, optional
        Foreground to add; none by default.
    noise : float or NoiseBlock
        Standard deviation of white noise [mK]; or a noise block, as in a likelihood.
    seed : int
        Seed of the noise.
    """

    theta: dict[str, Number] | None = None
    source: Literal["emulator", "simulator"] = Field("simulator", alias="from")
    test_signal: Index | None = None
    foreground: MockForeground | None = None
    noise: MockNoise
    seed: DataSeed

    @model_validator(mode="after")
    def _one_source(self):
        if (self.theta is None) == (self.test_signal is None):
            raise ValueError("give either theta or test_signal")
        return self

    def beside(self, folder: Path) -> "Mock":
        """Copy with the paths of its noise and foreground files made absolute relative to a folder."""
        blocks = {"noise": None if self.has_white_noise else self.noise, "foreground": self.foreground}
        return self.model_copy(update={key: b.beside(folder) for key, b in blocks.items() if b is not None})

    @property
    def has_white_noise(self) -> bool:
        """Whether its noise is a single number in mK."""
        return isinstance(self.noise, float)


Hours = Annotated[Number, Field(ge=0, le=24)]


class Data(Block):
    """The data: a mock, a file, or a public spectrum that has been downloaded.

    Parameters
    ----------
    mock : Mock, optional
        Mock observation. Exactly one of `mock`, `file` and `public` is given.
    file : str, optional
        File with the spectrum.
    public : str, optional
        Public spectrum that `lstmfit data fetch` has downloaded, such as ``edges2018``.
    columns : dict of str to (int or str)
        Columns by their meaning (frequency or redshift, temperature, weight, flag, sigma), and ``frequency_unit``. By
        default those that the header names, else 0 and 1.
    unit : {"K", "mK"}
        Unit of the temperature; by default that of the header, else mK.
    band : (float, float), optional
        Lowest and highest frequency to keep [MHz]; all by default.
    bin : float, optional
        Width of the bins in which channels are averaged [MHz]; none by default.
    load : str, optional
        Load of a GSData file; by default the only one, or ``ant``.
    time : int or (int, int), optional
        Number of a time in a GSData file, or the first and the last, from 0; all by default.
    lst : (float, float), optional
        Range of local sidereal time in a GSData file [h]; all by default.
    """

    mock: Mock | None = None
    file: str | None = None
    public: str | None = None
    columns: Annotated[dict[str, Any], BeforeValidator(check_columns)] = Field(DEFAULT)
    unit: Literal["K", "mK"] = "mK"
    band: tuple[Number, Number] | None = None
    bin: Positive | None = None
    load: str | None = None
    time: Index | tuple[Index, Index] | None = None
    lst: tuple[Hours, Hours] | None = None

    @model_validator(mode="after")
    def _one_source(self):
        if sum(source is not None for source in (self.mock, self.file, self.public)) != 1:
            raise ValueError("give exactly one of mock, file and public")
        if self.band is not None and not 0 <= self.band[0] < self.band[1]:
            raise ValueError(f"band is {list(self.band)}; give two frequencies in MHz, the lower one first")
        return self

    @property
    def given_unit(self) -> str | None:
        """Unit given in the run file; None if it is taken from the header of the data file."""
        return self.unit if "unit" in self.model_fields_set else None

    def beside(self, folder: Path, place: str) -> "Data":
        """Copy with file paths relative to a folder made absolute; `place` is its dotted key, for messages."""
        changes: dict[str, Any] = {}
        if self.file is not None:
            changes["file"] = str(folder / user_path(self.file, f"{place}.file"))
        if self.mock is not None:
            changes["mock"] = self.mock.beside(folder)
        return self.model_copy(update=changes) if changes else self

    @property
    def given_columns(self) -> dict[str, Any] | None:
        """Columns given in the run file; None if they are taken from the header of the data file."""
        return self.columns if "columns" in self.model_fields_set else None

    @model_serializer(mode="wrap")
    def _leave_to_the_header(self, handler):
        content = handler(self)
        if self.given_unit is None:
            content.pop("unit", None)
        if self.given_columns is None and self.file is not None:
            content.pop("columns", None)
        return content


UNNAMED = "global_signal"
"""Name of the spectrum if the run file has a single ``data`` block."""
SPECTRUM_BLOCKS = {"global_signal": GlobalSignalOptions}
"""Blocks of the shipped likelihoods of a spectrum, which are validated with the run file."""


def _data(value) -> dict[str, Data]:
    """Blocks of the data by the names of their spectra; a single block is the spectrum `UNNAMED`."""
    if not _has_names(value):
        return {UNNAMED: validate_nested(Data, value)}
    for name in value:
        _check_spectrum_name(name)
    return {name: validate_nested(Data, block, name) for name, block in value.items()}


def _has_names(value) -> bool:
    """Whether data has named blocks. No key of a block has a value with keys of a block."""
    keys = Data.model_fields.keys()
    if not isinstance(value, dict):
        return False
    return any(isinstance(b, Data) or (isinstance(b, dict) and not keys.isdisjoint(b)) for b in value.values())


def _check_spectrum_name(name):
    if not isinstance(name, str) or re.fullmatch(r"\w{1,40}", name, flags=re.ASCII) is None:
        raise ValueError(
            f"{shown(name)} cannot be the name of a spectrum, which occurs in names of parameters and files; use up to "
            "40 letters, digits and underscores"
        )


def _likelihoods(value) -> dict[str, Any]:
    """Blocks of the likelihoods by name, those of spectra first."""
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{shown(value)} is not a mapping of likelihoods; give one, such as {{planck_tau: {{}}}}")
    found = {name: _likelihood(name, options) for name, options in value.items()}
    return dict(sorted(found.items(), key=lambda item: not isinstance(item[1], Block)))


def _likelihood(name, options):
    if not isinstance(name, str):
        raise ValueError(f"{shown(name)} cannot be the name of a likelihood; give text")
    # `planck_tau:` without a value means its defaults.
    options = {} if options is None else options
    if isinstance(options, Block):
        return options
    if not isinstance(options, dict):
        raise ValueError(f"{name} is {shown(options)}; give its options as a mapping, {{}} for the defaults")
    of = options.get("class", name)
    if not isinstance(of, str):
        raise ValueError(f"{name}.class is {shown(of)}; give the name of a likelihood")
    if "class" in options:
        _check_spectrum_name(name)
    if not (of in LIKELIHOODS or "." in of or ":" in of):
        find_likelihood(of)
    options = {key: option for key, option in options.items() if key != "class" or of != name}
    return validate_nested(SPECTRUM_BLOCKS[of], options, name) if of in SPECTRUM_BLOCKS else options


class Sampler(Block):
    """The sampler: its name and its settings. PolyChord by default."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _one_sampler(cls, data):
        if not isinstance(data, dict):
            return data
        for name in data:
            if name not in SAMPLERS:
                raise ValueError(f"unknown sampler {name!r}; {did_you_mean(name, SAMPLERS)}")
        if len(data) > 1:
            raise ValueError(f"{' and '.join(data)} are both named; a run has one sampler, take the others out")
        # `nautilus:` with nothing behind it means its defaults.
        (name, options), *_ = data.items() or {"polychord": {}}.items()
        settings = sampler_class(name).Settings
        if isinstance(options, settings):
            return {name: options}
        if options is not None and not isinstance(options, dict):
            raise ValueError(f"{name} is {shown(options)}; give its settings as a mapping, {{}} for the defaults")
        return {name: validate_nested(settings, options or {}, name)}

    @property
    def name(self) -> str:
        """Name of the sampler."""
        return next(iter(self.__pydantic_extra__))

    @property
    def settings(self) -> SamplerSettings:
        """Its settings."""
        return self.__pydantic_extra__[self.name]


COBAYA_KEYS = ("ref", "proposal", "drop")
"""Cobaya's keys of a parameter that have no meaning here."""


class ParamBlock(Block):
    """One parameter: a prior, a fixed value, an expression of other parameters, or a derived column of the chain.

    A number alone is a fixed value. Without prior, value and derived, a parameter has its default prior.

    Parameters
    ----------
    prior : dict or (float, float), optional
        Prior of a sampled parameter: the name of the distribution (``dist``) and its parameters, or [min, max].
    value : float or str, optional
        Fixed value, or an expression of other parameters.
    derived : str, optional
        Expression of other parameters that is only written to the chain.
    latex : str, optional
        Label in plots, without dollar signs.
    """

    prior: dict[str, Any] | None = None
    value: Number | str | None = None
    derived: str | None = None
    latex: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _in_own_keys(cls, data):
        """Convert a number to a value and Cobaya's [min, max] to a prior; drop Cobaya's keys without a meaning here."""
        if isinstance(data, (int, float)) and not isinstance(data, bool):
            return {"value": data}
        if not isinstance(data, dict):
            return data
        if not set(COBAYA_KEYS).isdisjoint(data):
            warnings.warn(
                "params: Cobaya's ref, proposal and drop are ignored, because nested sampling starts from the prior",
                stacklevel=2,
            )
        data = {key: value for key, value in data.items() if key not in COBAYA_KEYS}
        if isinstance(data.get("prior"), (list, tuple)):
            if len(data["prior"]) != 2:
                raise ValueError(f"prior is {shown(data['prior'])}; give [min, max], or {{dist: NAME, ...}}")
            data["prior"] = dict(zip(("min", "max"), data["prior"]))
        return data

    @model_validator(mode="after")
    def _one_of_them(self):
        if sum(what is not None for what in (self.prior, self.value, self.derived)) > 1:
            raise ValueError("give at most one of prior, value and derived")
        for text in (self.value, self.derived):
            if isinstance(text, str):
                compile_expression(text, sorted(names_in(text)))
        if self.prior is not None:
            from lstmfit.priors.distributions import make_distribution

            make_distribution(self.prior)
        return self


class RunConfig(Block):
    """The blocks of a run file.

    Parameters
    ----------
    emulator : EmulatorSource, optional
        Emulator of the signal. Exactly one of `emulator`, `simulator` and `signal` is given.
    simulator : str, optional
        Simulator that computes the signal in every call: ``echo21``, an emulator in its place, or a class of your own
        by its dotted path.
    signal : {"flattened_gaussian", "none"}, optional
        Analytic signal, or no signal.
    extrapolate : bool
        Whether computed parameters may leave the training range of the emulator.
    data : dict of str to Data
        Data by the names of their spectra; a single block without a name is the spectrum ``global_signal``.
    likelihood : dict of str to (Block or dict)
        Likelihoods by name, whose logarithms are added; those of spectra come first.
    priors : str or list of str, optional
        Sets of priors, each the name of a shipped one (echo21, 21cmgem, ares) or a file. By default the training range
        of the emulator and the priors of the likelihoods.
    params : dict of str to ParamBlock
        Parameters by name. They replace the default priors and the sets in `priors`.
    sampler : Sampler
        The sampler and its settings; ``polychord: {}`` by default.
    output : str, optional
        Output folder; by default chains/NAME, where NAME is that of the run file.
    resolved : dict, optional
        Record that a fit adds to the run file in its output folder.
    """

    emulator: EmulatorSource | None = None
    simulator: str | None = None
    signal: Literal["flattened_gaussian", "none"] | None = None
    extrapolate: StrictBool = False
    data: Annotated[dict[str, Data], BeforeValidator(_data)] = Field({})
    likelihood: Annotated[dict[str, Any], BeforeValidator(_likelihoods)]
    priors: str | list[str] | None = None
    params: dict[str, ParamBlock] = Field({})
    sampler: Sampler = Field(default_factory=lambda: Sampler.model_validate({}))
    output: str | None = None
    resolved: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_signal(self):
        if sum(signal is not None for signal in (self.emulator, self.simulator, self.signal)) != 1:
            raise ValueError("give exactly one of emulator, simulator and signal (signal: none for no signal)")
        return self

    @model_serializer(mode="wrap")
    def _without_the_name_of_a_single_block(self, handler):
        content = handler(self)
        if "data" in content:
            content["data"] = self._spelled(content["data"])
        return {key: value for key, value in content.items() if key != "data" or value}

    def _spelled(self, data):
        return data[UNNAMED] if set(data) == {UNNAMED} else data

    @property
    def data_places(self) -> dict[str, tuple[str, ...]]:
        """Keys that lead to the data block of each spectrum, by its name."""
        return {name: ("data",) if set(self.data) == {UNNAMED} else ("data", name) for name in self.data}

    @property
    def spectrum_blocks(self) -> dict[str, GlobalSignalOptions]:
        """Blocks of the shipped likelihoods of spectra, by name."""
        return {name: block for name, block in self.likelihood.items() if isinstance(block, Block)}

    @property
    def others(self) -> dict[str, dict]:
        """Options of the other likelihoods, by name."""
        return {name: dict(block) for name, block in self.likelihood.items() if not isinstance(block, Block)}

    def with_spectrum_blocks(self, **changes) -> dict[str, Any]:
        """Copy of the likelihoods with values of all `spectrum_blocks` replaced."""
        return self.likelihood | {name: b.model_copy(update=changes) for name, b in self.spectrum_blocks.items()}


def shipped_runs() -> dict[str, Path]:
    """Run files shipped with the package, by name."""
    folder = resources.files("lstmfit.runs")
    return {p.name.removesuffix(".yaml"): Path(str(p)) for p in folder.iterdir() if p.name.endswith(".yaml")}


def find_run(source) -> Path:
    """Path of a run file, given its path or the name of a shipped one (with or without ``runs/`` and ``.yaml``).

    Raises
    ------
    InputError
        There is no such run file.
    """
    path = user_path(source, "run file")
    if path.is_file():
        return path
    runs = shipped_runs()
    if path.stem in runs and str(path.parent) in (".", "runs"):
        return runs[path.stem]
    raise InputError(f"no run file {source}; {did_you_mean(path.stem, sorted(runs), 'shipped run files are')}")


def load(source) -> RunConfig:
    """Read and validate a run file.

    Parameters
    ----------
    source : path, str or mapping
        A file, the name of a shipped run, or its content as a mapping.

    Returns
    -------
    RunConfig
        The run file with absolute paths; relative paths refer to the folder of the run file.

    Raises
    ------
    InputError
        The file does not exist, is not YAML, or contains a mistake.
    """
    if isinstance(source, dict):
        return _absolute(validate(source, "run"), Path.cwd())
    path = find_run(source)
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a run file; expected keys are {listed(known_keys(RunConfig))}")
    config = validate(content, path.name)
    return _absolute(config, path.resolve().parent)


def _absolute(config: RunConfig, folder: Path) -> RunConfig:
    """Make all paths in the run file absolute, relative to its folder."""
    changes: dict[str, Any] = {
        "data": {
            name: data.beside(folder, ".".join(place))
            for (name, data), place in zip(config.data.items(), config.data_places.values())
        },
        "likelihood": config.likelihood | {name: b.beside(folder) for name, b in config.spectrum_blocks.items()},
    }
    if config.emulator is not None:
        changes["emulator"] = config.emulator.beside(folder)
    if config.simulator is not None and "\0" not in config.simulator and (folder / config.simulator).exists():
        # An emulator that stands for the simulator.
        changes["simulator"] = str(folder / config.simulator)
    if config.priors is not None:
        names = [config.priors] if isinstance(config.priors, str) else config.priors
        paths = [folder / user_path(name, "priors") for name in names]
        changes["priors"] = [str(path) if path.is_file() else name for path, name in zip(paths, names)]
    return config.model_copy(update=changes)


def validate(content: dict, where: str) -> RunConfig:
    """Validate the content of a run file; mistakes are reported in one InputError."""
    return validate_block(RunConfig, content, where)


def dump(config: RunConfig, path) -> None:
    """Write a run file with all defaults; loading it gives the same configuration."""
    content = config.model_dump(by_alias=True, exclude_none=True)
    write_text(path, dump_yaml(content))
