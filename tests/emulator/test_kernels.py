"""Compiled code that is kept on disk: dropped when any of its sources changes, and never in the way."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lstmfit import kernels

ROOT = Path(kernels.__file__).parent.parent
TOY = {
    "__init__.py": "",
    "physics.py": """
        from lstmfit.kernels import cached_kernel

        @cached_kernel()
        def rate(x):
            return 2.0 * x
    """,
    "constants.py": "OFFSET = 1.0\n",
    "solver.py": """
        from lstmfit.kernels import cached_kernel
        from toy.physics import rate
        from toy.constants import OFFSET

        @cached_kernel(nogil=True)
        def solve(x):
            return rate(x) + OFFSET
    """,
}


@pytest.fixture
def toy(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    for name, text in TOY.items():
        (folder / name).write_text(textwrap.dedent(text))
    return folder


def run(folder, code, **environment):
    """Output of Python with the package of a folder; stderr has the log."""
    log = "import logging; logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
    # Python's own cache of bytecode does not notice an edit that keeps time and size of a file.
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(folder)} | environment
    done = subprocess.run(
        [sys.executable, "-c", log + code], capture_output=True, text=True, timeout=500, cwd=folder,
        env={key: value for key, value in env.items() if value is not None},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


SOLVE = "from toy.solver import solve; print(solve(3.0), sum(solve.stats.cache_hits.values()))"


def test_an_edited_source_that_is_inlined_is_compiled_again(toy):
    folder = toy.parent
    out, log = run(folder, SOLVE)
    assert out == "7.0 0"
    assert log.count("compiling for this processor") == 1
    out, log = run(folder, SOLVE)
    assert out == "7.0 1"
    assert not log
    solver = (toy / "solver.py").stat()
    for name, old, new, expected in (("physics.py", "2.0", "5.0", "16.0 0"), ("constants.py", "1.0", "4.0", "19.0 0")):
        path = toy / name
        before = path.stat()
        path.write_text(path.read_text().replace(old, new))
        # Not even a clock that stands still hides it.
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert run(folder, SOLVE)[0] == expected
    assert (toy / "solver.py").stat().st_mtime_ns == solver.st_mtime_ns
    assert run(folder, SOLVE)[0] == "19.0 1"


@pytest.mark.slow
def test_the_integrator_sees_new_physics(tmp_path):
    """The case that was found: `_radau.integrate` calls `_kernel.derivative`."""
    package = tmp_path / "lstmfit"
    for source in ("errors.py", "schema.py", "parameters.py", "kernels.py", "simulators"):
        path, target = ROOT / "lstmfit" / source, package / source
        target.parent.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, target)
    (package / "__init__.py").write_text("")
    code = f"""
import numpy as np
import lstmfit
from lstmfit.simulators import _kernel, _radau
assert lstmfit.__file__.startswith({str(tmp_path)!r}), lstmfit.__file__
fixed = _kernel.Coefficients(*[1.0] * len(_kernel.Coefficients._fields))
spline = np.zeros((4, 59)); spline[3] = 0.1
shared = fixed._replace(z_star=60.0, recombination=0.0), spline, np.ones(2), np.ones(2), 1
out = _radau.integrate(_kernel.IONISATION, np.zeros(1), -4.0, 0.0, np.array([-3.0]), 1e-3, 1e-6, *shared)
print(round(float(out[0, 0]), 6))
"""
    first, _ = run(tmp_path, code)
    kernel = package / "simulators" / "_kernel.py"
    text = kernel.read_text()
    assert "out[0] = c.ionising * f_coll - recombinations" in text
    changed = "out[0] = 2.0 * c.ionising * f_coll - recombinations"
    kernel.write_text(text.replace("out[0] = c.ionising * f_coll - recombinations", changed))
    second, _ = run(tmp_path, code)
    assert float(second) == pytest.approx(2.0 * float(first), rel=1e-3)
    assert float(first) > 0


def test_every_kernel_that_is_kept_is_kept_by_its_sources():
    files = [p for top in ("lstmfit", "likelihoods", "priors") for p in (ROOT / top).rglob("*.py")]
    texts = {p: p.read_text(encoding="utf-8") for p in files if p.name != "kernels.py"}
    assert not [p for p, text in texts.items() if re.search(r"cache\s*=\s*True", text)]
    assert sum("@cached_kernel" in text for text in texts.values()) >= 4


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("lstmfit.emulator._kernel", {"_kernel.py", "simd.py", "kernels.py"}),
        ("lstmfit.simulators._radau", {"_radau.py", "_kernel.py", "kernels.py"}),
        ("lstmfit.likelihoods._uvlf_kernel", {"_uvlf_kernel.py", "kernels.py"}),
    ],
)
def test_kernels_depend_on_kernels_only(module, expected):
    __import__(module)
    assert {Path(path).name for path in kernels.sources(module)} == expected


def test_without_any_folder_that_can_be_written(toy):
    """As in a read-only installation without a home; files in place of the folders, since root may write anywhere."""
    (toy / "__pycache__").write_text("")
    home = toy.parent / "home"
    home.write_text("")
    environment = {"NUMBA_CACHE_DIR": None, "XDG_CACHE_HOME": None, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(2):
        out, log = run(toy.parent, SOLVE, **environment)
        assert out == "7.0 0"
        assert log.count("set NUMBA_CACHE_DIR") == 1
        assert "Traceback" not in log


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_code_with_a_single_wrong_byte_is_compiled_again(part, toy):
    """Its pickle can still be read, and the wrong code would run."""
    run(toy.parent, SOLVE)
    files = list((toy.parent / "cache").rglob("*.nbc"))
    assert files
    for path in files:
        content = bytearray(path.read_bytes())
        content[int(part * len(content))] ^= 1
        path.write_bytes(content)
    assert run(toy.parent, SOLVE)[0] == "7.0 0"
    assert run(toy.parent, SOLVE)[0] == "7.0 1"


def test_damaged_and_full_caches_cost_a_compilation(toy):
    folder = toy.parent
    run(folder, SOLVE)
    files = [p for p in (folder / "cache").rglob("*.nb[ic]")]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:40])
    assert run(folder, SOLVE)[0] == "7.0 0"
    assert run(folder, SOLVE)[0] == "7.0 1"
    for path in (folder / "cache").rglob("*.nb[ic]"):
        path.unlink()
    full = "from numba.core.caching import IndexDataCacheFile\n" + (
        "def save(*_): raise OSError(28, 'No space left on device')\nIndexDataCacheFile.save = save\n"
    )
    out, log = run(folder, full + SOLVE)
    assert out == "7.0 0"
    assert "No space left on device" in log
    assert "Traceback" not in log
