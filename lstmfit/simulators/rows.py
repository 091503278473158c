"""The rows of a set: what is finished, what is missing, and the shards in which finished ones wait.

A row's parameters depend on the seed and its number alone, so where and when it is computed changes nothing. A shard
is a small file that is written beside and renamed, so that it exists whole or not at all.
"""

import logging
import os
import zipfile
from pathlib import Path

import numpy as np

from lstmfit.errors import one_line
from lstmfit.files import replacing
from lstmfit.parameters import Parameter
from lstmfit.simulators.design import draw

log = logging.getLogger(__name__)

SPLITS = ("val", "test", "train")
"""In the order in which they are simulated, so that whatever is finished can already train and judge."""


class Rows:
    """Finished rows in memory, by split: parameters, results, and what is still missing.

    Parameters
    ----------
    plan : dict
        Seed, design, numbers of rows, parameters and redshifts of the set.
    """

    def __init__(self, plan):
        parameters = [Parameter(**p) for p in plan["parameters"]]
        seeds = dict(zip(("train", "val", "test"), np.random.SeedSequence(plan["seed"]).spawn(3)))
        channels = len(plan["redshifts"])
        self.theta, self.state, self.signal, self.x_HI, self.tau = {}, {}, {}, {}, {}
        self.messages = {split: {} for split in SPLITS}
        for split in SPLITS:
            n = plan["counts"][split]
            kind = plan["design"] if split == "train" else "uniform"
            self.theta[split] = draw(kind, n, parameters, np.random.default_rng(seeds[split]))
            # 0 missing, 1 done, 2 failed.
            self.state[split] = np.zeros(n, dtype=np.uint8)
            self.signal[split] = np.zeros((n, channels), dtype=np.float32)
            self.x_HI[split] = np.zeros((n, channels), dtype=np.float32)
            self.tau[split] = np.zeros(n)

    @property
    def n_total(self) -> int:
        """Rows that are wanted."""
        return sum(state.size for state in self.state.values())

    @property
    def n_missing(self) -> int:
        """Rows that have not been tried yet."""
        return sum(int(np.count_nonzero(state == 0)) for state in self.state.values())

    def missing(self) -> list[tuple[str, int]]:
        """Split and number of each row to simulate, in order."""
        return [(split, int(row)) for split in SPLITS for row in np.flatnonzero(self.state[split] == 0)]

    def put(self, split, row, outcome) -> None:
        """Take one row's outcome: (signal, x_HI, tau), or the message of a failure."""
        if isinstance(outcome, str):
            self.state[split][row] = 2
            self.messages[split][row] = outcome
        else:
            self.signal[split][row], self.x_HI[split][row], self.tau[split][row] = outcome
            self.state[split][row] = 1

    def read_shards(self, parts: Path) -> None:
        """Take the rows of all shards in a folder; a shard that cannot be read is simulated again."""
        for shard in sorted(parts.glob("*.npz")):
            try:
                with np.load(shard, allow_pickle=False) as data:
                    content = {name: data[name] for name in data.files}
                self._check_shard(content)
            except (OSError, ValueError, EOFError, KeyError, AttributeError, MemoryError, zipfile.BadZipFile) as error:
                log.warning("%s is damaged and its rows are simulated again (%s)", shard, one_line(error))
                continue
            for i, (split, row) in enumerate(zip(content["split"], content["row"])):
                if row < self.state[str(split)].size:
                    message = str(content["message"][i])
                    results = (content["signal"][i], content["x_HI"][i], content["tau"][i])
                    self.put(str(split), int(row), message or results)


    def _check_shard(self, content):
        """Raise ValueError unless the arrays are those of a shard of this set."""
        n = content["row"].shape[0] if content["row"].ndim == 1 else -1
        channels = self.signal["train"].shape[1]
        shapes = {"split": (n,), "row": (n,), "signal": (n, channels), "x_HI": (n, channels), "tau": (n,)}
        shapes["message"] = (n,)
        for name, shape in shapes.items():
            kinds = "U" if name in ("split", "message") else "iu" if name == "row" else "f"
            if content[name].shape != shape or content[name].dtype.kind not in kinds:
                raise ValueError(f"{name} has shape {content[name].shape} and type {content[name].dtype}")
        if not set(content["split"].tolist()) <= set(SPLITS) or (n and content["row"].min() < 0):
            raise ValueError("rows of no split")


def write_shard(path: Path, which: list[tuple[str, int]], rows: Rows) -> None:
    """Write some rows, given by split and number, as one shard."""
    content = {
        "split": np.array([split for split, _ in which]),
        "row": np.array([row for _, row in which]),
        "signal": np.array([rows.signal[split][row] for split, row in which]),
        "x_HI": np.array([rows.x_HI[split][row] for split, row in which]),
        "tau": np.array([rows.tau[split][row] for split, row in which]),
        "message": np.array([rows.messages[split].get(row, "") for split, row in which]),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **content)
        file.flush()
        os.fsync(file.fileno())
