"""The HDF5 file of a finished set, in the layout of the public 21cmVAE and 21cmLSTM sets."""

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lstmfit._version import __version__
from lstmfit.errors import InputError, one_line
from lstmfit.files import replacing
from lstmfit.parameters import Parameter
from lstmfit.schema import DataSeed, Index, Number, first_mistake, shown
from lstmfit.simulators.rows import SPLITS, Rows


@dataclass(frozen=True)
class SimulatedSet:
    """What a campaign has made.

    Parameters
    ----------
    path : pathlib.Path
        The HDF5 file.
    n_train, n_val, n_test : int
        Signals in each split.
    n_failed : int
        Simulations that failed; they are in the file's group `failed`.
    complete : bool
        Whether every row that was asked for has been tried.
    """

    path: Path
    n_train: int
    n_val: int
    n_test: int
    n_failed: int
    complete: bool


def read_plan_of(path: Path) -> dict | None:
    """The plan that a finished set was made by; None where there is no file."""
    if not path.exists():
        return None
    remedy = "choose another name, or force to replace it"
    from lstmfit.hdf5 import read_text, reading

    try:
        with reading(path, "set made by lstmfit simulate", remedy) as file:
            return parse_plan(read_text(file, "plan"), path)
    except InputError as error:
        raise InputError(f"{path} exists and is not a set made by lstmfit simulate ({error}); {remedy}") from error


class Plan(BaseModel):
    """What a campaign simulates, as it is kept in JSON; further keys are left alone."""

    model_config = ConfigDict(extra="allow")

    simulator: str
    design: str
    seed: DataSeed
    parameters: Annotated[list[dict[str, Any]], Field(min_length=1)]
    redshifts: Annotated[list[Number], Field(min_length=1)]
    counts: dict[Literal["train", "val", "test"], Index]


def parse_plan(text: str, where) -> dict:
    """A plan from JSON.

    Raises
    ------
    InputError
        It is not JSON, or not a plan.
    """
    try:
        plan = json.loads(text)
        Plan.model_validate(plan)
        for parameter in plan["parameters"]:
            Parameter(**parameter)
        if set(plan["counts"]) != set(SPLITS):
            raise ValueError(f"counts are of {', '.join(plan['counts'])}")
    except ValidationError as error:
        raise InputError(f"the plan in {where} is damaged: {first_mistake(error)}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"the plan in {where} is damaged: {one_line(error)}") from None
    return plan


def compare_plans(wanted: dict, found: dict, path: Path) -> None:
    """Raise if a campaign was begun with other settings; the numbers of signals may have grown."""
    differing = [k for k in wanted if k != "counts" and wanted[k] != found.get(k)]
    if differing:
        shown = "; ".join(
            f"{k} {found.get(k)!r} there, {wanted[k]!r} asked for" if k not in ("parameters", "redshifts") else k
            for k in differing
        )
        raise InputError(
            f"{path} was begun with other settings ({shown}); use the same ones to continue, choose another name, "
            "or use --force to start over"
        )
    fewer = [s for s in SPLITS if wanted["counts"][s] < found["counts"][s]]
    if fewer:
        shown = ", ".join(f"{wanted['counts'][s]} < {found['counts'][s]} for {s}" for s in fewer)
        raise InputError(
            f"{path} was begun with more signals ({shown}); a set can grow but not shrink: ask for as many or more, "
            "choose another name, or use --force to start over"
        )


def read_finished(rows: Rows, path: Path, plan: dict) -> None:
    """Take the rows of the finished set at `path`, if there is one, for a larger set."""
    from lstmfit.hdf5 import find_dataset, read_array, read_axes, reading

    found = read_plan_of(path)
    if found is None:
        return
    compare_plans(plan, found, path)
    n_params = len(plan["parameters"])
    with reading(path, "set made by lstmfit simulate", "choose another name, or force to replace it") as file:
        layout = read_axes(file, len(plan["redshifts"]))
        for split in SPLITS:
            there = read_array(file, f"row_{split}", (None,), "integer")
            n = len(there)
            theta = read_array(file, f"par_{split}", (n, n_params))
            if n and (there.min() < 0 or there.max() >= len(rows.theta[split]) or len(np.unique(there)) < n):
                raise InputError(f"{path}: row_{split} has numbers of no row of this set; force to replace it")
            if n and not np.array_equal(theta, rows.theta[split][there]):
                raise InputError(
                    f"{path}: its parameters are not the ones that seed and design give here (another version "
                    "of NumPy or SciPy?), so it cannot grow; choose another name"
                )
            if not n:
                continue
            outputs = {name: read_array(file, f"{name}_{split}", (n, *shape)) for name, shape in layout.shapes.items()}
            rows.expect(layout)
            for name, array in outputs.items():
                rows.outputs[split][name][there] = array
            rows.state[split][there] = 1
        row = read_array(file, "failed/row", (None,), "integer")
        texts = [find_dataset(file, f"failed/{name}") for name in ("split", "message")]
        for split, number, message in zip(texts[0].asstr()[()], row, texts[1].asstr()[()]):
            if split not in SPLITS or not 0 <= number < len(rows.theta[split]):
                raise InputError(f"{path}: group failed has a row {number} of {shown(split)}; force to replace it")
            rows.put(split, int(number), message)


def write_set(path: Path, plan: dict, rows: Rows) -> SimulatedSet:
    """Write what is finished as one HDF5 file in the layout of the public 21cmVAE and 21cmLSTM sets."""
    import h5py

    from lstmfit.hdf5 import write_axes

    parameters = plan["parameters"]
    text = h5py.string_dtype()
    packed = {"compression": "gzip", "shuffle": True}
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["plan"] = json.dumps(plan)
        file.attrs["parameters"] = np.array([p["name"] for p in parameters], dtype=text)
        file.attrs["units"] = np.array([p["unit"] for p in parameters], dtype=text)
        file.attrs["latex"] = np.array([p["latex"] for p in parameters], dtype=text)
        file.attrs["log"] = np.array([p["log"] for p in parameters])
        file.attrs["zero"] = np.array([p.get("zero") or 0.0 for p in parameters])
        file.attrs["min"] = np.array([p["min"] for p in parameters])
        file.attrs["max"] = np.array([p["max"] for p in parameters])
        for name in ("seed", "design", "simulator", "simulator_name", "simulator_version"):
            file.attrs[name] = plan[name]
        file.attrs["lstmfit_version"] = __version__
        file.attrs["numpy_version"] = np.__version__
        file.attrs["python_version"] = platform.python_version()
        file.attrs["complete"] = rows.n_missing == 0
        file.attrs["signal_unit"] = "mK"
        file["redshifts"] = np.array(plan["redshifts"])
        if rows.layout is not None:
            write_axes(file, rows.layout)
        for split in ("train", "val", "test"):
            good = np.flatnonzero(rows.state[split] == 1)
            file[f"par_{split}"] = rows.theta[split][good]
            for name, array in rows.outputs[split].items():
                file.create_dataset(f"{name}_{split}", data=array[good], **(packed if array.ndim > 1 else {}))
            file[f"row_{split}"] = good
        failed = [(split, row) for split in SPLITS for row in sorted(rows.messages[split])]
        group = file.create_group("failed")
        group.create_dataset("split", data=[split for split, _ in failed], shape=(len(failed),), dtype=text)
        group["row"] = np.array([row for _, row in failed], dtype=np.int64)
        theta = [rows.theta[split][row] for split, row in failed]
        group["theta"] = np.reshape(np.array(theta, dtype=float), (len(failed), len(parameters)))
        messages = [rows.messages[split][row] for split, row in failed]
        group.create_dataset("message", data=messages, shape=(len(failed),), dtype=text)
    return summary(path)


def summary(path: Path) -> SimulatedSet:
    """Say what the file of a set holds."""
    from lstmfit.hdf5 import find_dataset, reading

    with reading(path, "set made by lstmfit simulate", "choose another name, or force to replace it") as file:
        counts = {f"n_{split}": find_dataset(file, f"par_{split}").shape[0] for split in SPLITS}
        n_failed = find_dataset(file, "failed/row").shape[0]
        return SimulatedSet(path, n_failed=n_failed, complete=bool(file.attrs.get("complete", False)), **counts)
