"""Check what is installed, and how to install what is missing."""

import importlib.util
import os
import shutil

EXTRAS = (
    ("nautilus", "nautilus"),
    ("blackjax", "blackjax"),
    ("mpi4py", "mpi"),
    ("echo21", "simulate"),
    ("tensorflow", "train"),
    ("py21cmemu", "21cmemu"),
)
"""Optional modules, and the extras of this package that install them."""
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "neon": "NEON"}
"""Vector instructions by their names in LLVM."""


def examine() -> list[tuple[str, str, str]]:
    """Look for everything that lstmfit can use.

    Returns
    -------
    list of tuple of str
        (part, what was found, command to fix it); the command is empty if nothing is missing.
    """
    from lstmfit.errors import InputError
    from lstmfit.sampling.polychord.libraries import load_library
    from lstmfit.workers import cores

    rows = []
    try:
        library = load_library()
        remedy = "" if library.counts_repeats else "old build, rebuild it: lstmfit doctor --install-polychord"
        rows.append(("PolyChord", f"{library.version}, {library.path}; academic, non-commercial use only", remedy))
    except InputError as error:
        rows.append(("PolyChord", "missing", str(error)))
    tools = {"gfortran": "gfortran", "make": "make", "mpirun": "openmpi-bin", "mpif90": "libopenmpi-dev"}
    for tool, package in tools.items():
        where = shutil.which(tool)
        rows.append((tool, where or "missing", "" if where else f"apt-get install {package}"))
    for module, extra in EXTRAS:
        there = importlib.util.find_spec(module) is not None
        remedy = "" if there else f'pip install "lstmfit[{extra}]"'
        rows.append((module, _version(module) if there else "missing", remedy))
    rows.append(("emulator weights", _precision(), ""))
    rows.append(("cores", str(cores()), ""))
    rows.append(("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "not set"), ""))
    return rows


def _precision() -> str:
    from lstmfit.emulator.simd import converts_halves, has_feature

    vectors = next((shown for name, shown in VECTORS.items() if has_feature(name)), "neither AVX2 nor AVX-512")
    if converts_halves():
        return f"half precision; {vectors}"
    return f"float32, because this processor has no F16C: calls are slower; {vectors}"


def _version(module):
    from importlib import metadata

    for name in metadata.packages_distributions().get(module, [module]):
        return f"{name} {metadata.version(name)}"
    return "found"
