"""The rows of a set during a campaign: finished rows, missing rows, and the shards that store finished rows.

The parameters of a row depend only on the seed and its number, not on where or when it is computed. A shard is a small
file that is written under a temporary name and renamed, so that it is either complete or absent.
"""

import logging
import os
import zipfile
from pathlib import Path

import numpy as np

from lstmfit.errors import one_line
from lstmfit.files import replacing
from lstmfit.outputs import OutputLayout
from lstmfit.parameters import Parameter
from lstmfit.simulators.design import draw
from lstmfit.simulators.protocol import SimulationError, layout_of

log = logging.getLogger(__name__)

SPLITS = ("val", "test", "train")
"""Splits in the order of simulation, so that a partial set can already be used for training and validation."""


class Rows:
    """Rows of a set in memory, by split: parameters, results, and the state of each row.

    Parameters
    ----------
    plan : dict
        Seed, design, numbers of rows, parameters and redshifts of the set.

    Attributes
    ----------
    layout : OutputLayout or None
        Layout of the outputs; None until the first row is finished.
    outputs : dict of str to dict of str to numpy.ndarray
        Outputs by split and name, (n, *shape) each; empty until then.
    """

    def __init__(self, plan):
        parameters = [Parameter(**p) for p in plan["parameters"]]
        seeds = dict(zip(("train", "val", "test"), np.random.SeedSequence(plan["seed"]).spawn(3)))
        self.redshifts = np.array(plan["redshifts"])
        self.axes = plan.get("axes") or {}
        self.layout: OutputLayout | None = None
        self.theta, self.state = {}, {}
        self.outputs: dict[str, dict[str, np.ndarray]] = {split: {} for split in SPLITS}
        self.messages: dict[str, dict[int, str]] = {split: {} for split in SPLITS}
        for split in SPLITS:
            n = plan["counts"][split]
            kind = plan["design"] if split == "train" else "uniform"
            self.theta[split] = draw(kind, n, parameters, np.random.default_rng(seeds[split]))
            # 0 missing, 1 done, 2 failed.
            self.state[split] = np.zeros(n, dtype=np.uint8)

    @property
    def n_total(self) -> int:
        """Total number of rows."""
        return sum(state.size for state in self.state.values())

    @property
    def n_missing(self) -> int:
        """Number of rows that have not been simulated yet."""
        return sum(int(np.count_nonzero(state == 0)) for state in self.state.values())

    def missing(self) -> list[tuple[str, int]]:
        """Split and number of each missing row, in the order of simulation."""
        return [(split, int(row)) for split in SPLITS for row in np.flatnonzero(self.state[split] == 0)]

    def expect(self, layout: OutputLayout) -> None:
        """Allocate the outputs for a layout.

        Raises
        ------
        SimulationError
            Other rows have different outputs.
        """
        if self.layout is None:
            self.layout = layout
            for split, state in self.state.items():
                self.outputs[split] = {
                    name: np.zeros((state.size, *shape), dtype=np.float32 if shape else np.float64)
                    for name, shape in layout.shapes.items()
                }
        elif self.layout.shapes != layout.shapes:
            raise SimulationError(f"the outputs are {layout.shapes}, but those of other rows are {self.layout.shapes}")

    def put(self, split, row, outcome) -> None:
        """Store the outcome of a row: its outputs by name, or the message of a failure."""
        if not isinstance(outcome, str):
            try:
                self.expect(layout_of(outcome, self.redshifts, self.axes))
            except SimulationError as error:
                outcome = f"SimulationError: {error}"
        if isinstance(outcome, str):
            self.state[split][row] = 2
            self.messages[split][row] = outcome
            return
        for name, array in self.outputs[split].items():
            array[row] = outcome[name]
        self.state[split][row] = 1

    def read_shards(self, parts: Path) -> None:
        """Read the rows of all shards in a folder; the rows of an unreadable shard are simulated again."""
        for shard in sorted(parts.glob("*.npz")):
            try:
                with np.load(shard, allow_pickle=False) as data:
                    content = {name: data[name] for name in data.files}
                outputs = self._check_shard(content)
            except (OSError, ValueError, EOFError, KeyError, AttributeError, MemoryError, zipfile.BadZipFile) as error:
                log.warning("%s is damaged (%s); its rows will be simulated again", shard, one_line(error))
                continue
            for i, (split, row) in enumerate(zip(content["split"], content["row"])):
                if row < self.state[str(split)].size:
                    message = str(content["message"][i])
                    self.put(str(split), int(row), message or {name: array[i] for name, array in outputs.items()})

    def _check_shard(self, content) -> dict[str, np.ndarray]:
        """Outputs of a shard; raises ValueError if its arrays are not those of a shard of this set."""
        n = content["row"].shape[0] if content["row"].ndim == 1 else -1
        for name, kinds in (("split", "U"), ("row", "iu"), ("message", "U")):
            if content[name].shape != (n,) or content[name].dtype.kind not in kinds:
                raise ValueError(f"{name} has shape {content[name].shape} and type {content[name].dtype}")
        if not set(content["split"].tolist()) <= set(SPLITS) or (n and content["row"].min() < 0):
            raise ValueError("a row has an invalid split or number")
        outputs = {name: array for name, array in content.items() if name not in ("split", "row", "message")}
        for name, array in outputs.items():
            if array.shape[:1] != (n,) or array.dtype.kind != "f":
                raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}")
        if (content["message"] == "").any():
            try:
                layout = layout_of({name: array[0] for name, array in outputs.items()}, self.redshifts, self.axes)
                self.expect(layout)
            except (SimulationError, KeyError) as error:
                raise ValueError(one_line(error)) from None
        return outputs


def write_shard(path: Path, which: list[tuple[str, int]], rows: Rows) -> None:
    """Write rows, given by split and number, to a shard."""
    content = {
        "split": np.array([split for split, _ in which]),
        "row": np.array([row for _, row in which]),
        "message": np.array([rows.messages[split].get(row, "") for split, row in which]),
    }
    for name in rows.layout or ():
        content[name] = np.array([rows.outputs[split][name][row] for split, row in which])
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **content)
        file.flush()
        os.fsync(file.fileno())
