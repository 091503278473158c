"""Validated content of the JSON files that our commands write and read back, because users may edit them."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lstmfit.errors import InputError, one_line
from lstmfit.schema import shown

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True, ge=0)]
Text = Annotated[str, Field(strict=True)]


class Figures(BaseModel):
    """A mapping with required keys; further keys are allowed."""

    model_config = ConfigDict(extra="allow")


class ParameterFigures(Figures):
    """One parameter of a summary, in the space of its prior."""

    mean: Finite
    mean_err: Finite | None = None
    std: Finite
    median: Finite
    lo68: Finite
    hi68: Finite
    truth: Finite | None
    log10: Annotated[bool, Field(strict=True)] = False


class FitVerdict(Figures):
    """Whether the residuals are noise."""

    fits: Annotated[bool, Field(strict=True)]
    text: Text


class FitTotals(Figures):
    """Goodness of fit of one spectrum or of all."""

    chi2: Finite
    dof: Finite | None
    p_value: Finite | None
    posterior_predictive_p: Finite
    verdict: FitVerdict


class Fit(FitTotals):
    """Goodness of fit, see `lstmfit.analysis.goodness.goodness`."""

    spectra: dict[str, FitTotals]


class Summary(Figures):
    """Content of ``summary.json``."""

    logZ: Finite
    logZ_err: Finite
    D_KL: Finite
    d_G: Finite
    n_like: Whole
    n_live: Whole
    wall_s: Finite
    ranks: Whole
    sampler: Text
    insertion_p: Finite | None = None
    fit: Fit | None = None
    at_prior_end: dict[str, Text] = Field(default={})
    parameters: dict[str, ParameterFigures]

    @model_validator(mode="after")
    def _something_was_sampled(self):
        if self.n_live and not self.parameters:
            raise ValueError("parameters is empty")
        return self


class ParameterBias(Figures):
    """Emulation bias of one parameter."""

    bias: Finite
    bias_err: Finite
    shift: Finite
    std_ratio: Finite
    true_bias: Finite | None


class Failures(Figures):
    """Failed simulations."""

    n: Whole
    first: Text | None


class SignalRms(Figures):
    """Rms differences of posterior signals from the true signal, and rms residual of the data, in mK."""

    emulated_68: Finite
    true_68: Finite
    noise: Finite


class Verdict(Figures):
    """Whether the figures can be trusted."""

    trusted: Annotated[bool, Field(strict=True)]
    text: Text


class Bias(Figures):
    """Content of ``chain_bias.json``."""

    parameters: dict[str, ParameterBias] = Field(min_length=1)
    truth: Text
    D_KL: Finite
    D_KL_err: Finite | None
    dlogZ: Finite
    dlogZ_err: Finite | None
    khat: Finite | None
    khat_limit: Finite
    ess: Finite
    efficiency: Finite
    n: Whole
    failures: Failures
    signal_rms_mK: SignalRms | None = None
    verdict: Verdict


class MockEmulation(Figures):
    """Emulation bias of one mock, or why it could not be measured."""

    failed: Text | None = None
    shift: dict[str, Finite] = Field(default={})
    D_KL: Finite = 0.0
    ess: Finite = 0.0
    trusted: Annotated[bool, Field(strict=True)] = False


class Mock(Figures):
    """One finished mock of a calibration, or why it failed."""

    failed: Text | None = None
    rank: dict[str, Finite] = Field(default={})
    z: dict[str, Finite] = Field(default={})
    chi2: Finite | None = None
    emulation: MockEmulation | None = None

    @model_validator(mode="after")
    def _whole(self):
        if self.failed is None and not (self.rank and self.rank.keys() == self.z.keys()):
            raise ValueError("rank and z are missing or have different parameters")
        measured = self.emulation is not None and self.emulation.failed is None
        if measured and self.emulation.shift.keys() != self.rank.keys():
            raise ValueError("emulation.shift has different parameters")
        return self


def read_figures(path, shape: type[Figures], remedy: str, omit: bool = False) -> dict:
    """Read a JSON file written by one of our commands.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    shape : type
        Class that describes its content.
    remedy : str
        How to recreate the file, for the error message.
    omit : bool
        Omit keys whose value is None.

    Returns
    -------
    dict
        Content, with defaults for keys that older versions did not write.

    Raises
    ------
    InputError
        The file is damaged, or a value has the wrong type.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"{shown(content)} is not a mapping")
        return shape.model_validate(content).model_dump(exclude_none=omit)
    except ValidationError as error:
        what = "; ".join(_mistake(e) for e in error.errors(include_url=False)[:2])
    except (OSError, ValueError, RecursionError) as error:
        what = one_line(error, 120)
    raise InputError(f"{path} is damaged ({what}); {remedy}")


def _mistake(error):
    at = one_line(".".join(map(str, error["loc"])), 80)
    return f"no {at}" if error["type"] == "missing" else f"{at} is {shown(error['input'], 40)}: {error['msg'].lower()}"
