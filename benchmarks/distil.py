"""Distil the shipped emulators `21cmgem`, `ares` and `21cmfast` from their teachers.

python benchmarks/distil.py 21cmgem --teacher emulator_21cmGEM.pth -o 21cmgem.h5
python benchmarks/distil.py ares --teacher emulator_ARES.pth -o ares.h5
python benchmarks/distil.py 21cmfast -o 21cmfast.h5                         # needs: pip install --no-deps py21cmemu

This runs `lstmfit simulate` and `lstmfit train` with the options below, and records the teacher in the file: its
source, its licence, and the error published by its authors. To resume either step, repeat the command.
"""

import argparse
import json
from importlib import util
from pathlib import Path

import numpy as np

from lstmfit.datasets.signal_sets import load_signals, write_test_set
from lstmfit.emulator.emulator import test_set_path
from lstmfit.emulator.train_emulator import train_emulator
from lstmfit.emulator.training import Recipe
from lstmfit.simulators.campaign import simulate_set

KAN = {
    "reference": "Dorigo Jones et al. 2025, arXiv:2508.11752",
    "source": "github.com/jdorigojones/21cmKAN, commit babb0f3",
    "licence": "MIT",
}
TEACHERS = {
    "21cmgem": KAN | {"name": "21cmKAN of 21cmGEM", "published_error": "0.20 to 0.32 % mean in its authors' trials"},
    "ares": KAN | {"name": "21cmKAN of ARES", "published_error": "not published"},
    "21cmfast": {
        "name": "21cmEMU mcg of 21cmFAST",
        "reference": "Breitman et al. 2024, arXiv:2309.05697; 2026, arXiv:2606.00219",
        "source": "py21cmemu 3.0.0 (PyPI)",
        "licence": "MIT",
        "published_error": "median 0.25 to 0.8 % of the signal by redshift",
    },
}
SIGNALS = {"21cmgem": 262144, "ares": 262144, "21cmfast": 131072}
ROUNDS = {
    "21cmgem": [Recipe(updates=36000), Recipe(updates=50000, learning_rate=6e-3, seed=1)],
    "ares": [Recipe(updates=26000), Recipe(updates=60000, learning_rate=8e-3, seed=1)],
    "21cmfast": [Recipe(updates=24000, extra_weight=0.1),
                 Recipe(updates=15000, learning_rate=6e-3, extra_weight=0.3, seed=1)],
}  # fmt: skip
"""Rounds of training; each starts from the best weights of the previous one."""
FAINTEST = -12.0
"""Floor of log10 of luminosity functions, one galaxy per magnitude in a cube of 10,000 Mpc; the teacher goes to -30."""
HIGHEST_PUBLISHED = {"21cmgem": 0.0032}
"""Largest published mean relative rms error of a teacher."""


def teacher_rms(name: str, signals: np.ndarray) -> np.ndarray | None:
    """Rms error of the teacher's signal in each channel (n_channels,) mK, from the errors published by its authors.

    For 21cmKAN it is the same fraction of the largest value of each signal in all channels. For 21cmEMU the published
    error is the median of the absolute error at each redshift as a fraction of max(|T|, 5 mK), which is converted to
    the standard deviation of a Gaussian by the factor 1.4826.
    """
    if name in HIGHEST_PUBLISHED:
        peaks = np.abs(signals).max(axis=1)
        return np.full(signals.shape[1], HIGHEST_PUBLISHED[name] * np.sqrt(np.mean(peaks**2)))
    if name != "21cmfast":
        return None
    folder = Path(util.find_spec("py21cmemu").submodule_search_locations[0])
    with np.load(folder / "models/mcg/lstm_emulator_constants.npz", allow_pickle=False) as file:
        # The file has descending redshift.
        percent = file["Tb_med_err"][::-1]
    floor = np.sqrt(np.mean(np.maximum(np.abs(signals), 5.0) ** 2, axis=0))
    return 1.4826 * percent / 100.0 * floor


def main():
    """Distil one of the emulators."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=TEACHERS)
    parser.add_argument("--teacher", default="21cmemu:mcg", help="the teacher's file")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--signals", type=Path, help="set of signals; by default beside the output")
    given = parser.parse_args()
    name, output = given.name, given.output
    signals = given.signals or output.with_name(f"set_{name}.h5")
    simulate_set(signals, SIGNALS[name], simulator=given.teacher, seed=1, n_val=4096, n_test=4096)
    data, checkpoint = load_signals(signals), output.with_name(output.name + ".checkpoint")
    # Record the name of the teacher instead of its path, which is only valid on this machine.
    data.record["simulator"] = TEACHERS[name]["name"]
    for split in (data.train, data.val, data.test):
        if "log10_uvlf" in split.extras:
            np.maximum(split.extras["log10_uvlf"], FAINTEST, out=split.extras["log10_uvlf"])

    def progress(update, _, validation):
        if validation is not None:
            print(f"{update} updates: validation {validation:.3f} %", flush=True)

    start = None
    for i, recipe in enumerate(ROUNDS[name]):
        # Each round has its own checkpoint; the checkpoint of a finished round contains its result.
        beside = checkpoint.with_name(f"{checkpoint.name}_{i}")
        emulator = train_emulator(
            data, recipe, None if start else {"encoder": (128,)}, start=start, name=name, half=True,
            checkpoint=beside, resume=beside.exists(), progress=progress,
        )  # fmt: skip
        start = emulator
    annotate(emulator, name, data)
    write_test_set(test_set_path(output), data)
    emulator.save(output)
    for beside in checkpoint.parent.glob(f"{checkpoint.name}_*"):
        beside.unlink()
    print(json.dumps(emulator.record["test"], indent=1))


def annotate(emulator, name, data):
    """Record the teacher and its published error in the emulator."""
    emulator.record["teacher"] = TEACHERS[name]
    # Double precision would double the size of the file.
    emulator.errors["covariance"] = emulator.errors["covariance"].astype(np.float32)
    rms = teacher_rms(name, data.test.signal)
    if rms is not None:
        emulator.errors["teacher_rms"] = rms


if __name__ == "__main__":
    main()
