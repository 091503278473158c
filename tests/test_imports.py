"""Import is free, and nobody imports what is not theirs."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import lstmfit

PACKAGE = Path(lstmfit.__file__).parent
TOP = PACKAGE.parent
HEAVY = ("tensorflow", "keras", "mpi4py", "numba", "matplotlib", "anesthetic", "pandas", "scipy", "echo21", "numpy")


def modules_after(statement):
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


def test_a_bare_import_loads_nothing_heavy():
    assert not modules_after("import lstmfit") & set(HEAVY)


def test_the_command_line_loads_nothing_heavy_for_help():
    statement = "import lstmfit.cli, typer.main; typer.main.get_command(lstmfit.cli.app)"
    assert not modules_after(statement) & set(HEAVY)


def test_a_fit_never_loads_tensorflow_nor_starts_mpi():
    loaded = modules_after("import lstmfit.driver; from lstmfit import Emulator; Emulator.load('echo21')")
    assert not loaded & {"tensorflow", "keras", "mpi4py.MPI", "echo21", "matplotlib"}


def test_the_run_file_is_read_without_a_sampler_pandas_or_scipy():
    """An option lives beside what it configures, in a module that loads none of it."""
    loaded = modules_after("import lstmfit.config")
    assert not loaded & set(HEAVY) - {"numpy"}
    ours = ("lstmfit.sampling.polychord", "lstmfit.sampling.nautilus", "lstmfit.sampling.blackjax", "lstmfit.emulator")
    ours += ("lstmfit.likelihoods.gaussian", "lstmfit.likelihoods.global_signal", "lstmfit.datasets.spectrum")
    assert not loaded & {*ours, "lstmfit.priors.distributions", "lstmfit.simulators"}


def imports_of(path):
    """Modules imported anywhere in a file, and those imported at its top level."""
    tree = ast.parse(path.read_text())
    everywhere, at_top = set(), set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        everywhere.update(names)
        if node in tree.body:
            at_top.update(names)
    return everywhere, at_top


def sources(*folders):
    return [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))]


def test_every_package_is_installed():
    """A folder that setup.cfg forgets is missing where the package is installed, but not here."""
    config = configparser.ConfigParser()
    config.read(TOP / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {".".join(path.relative_to(TOP).parent.parts) for path in PACKAGE.rglob("__init__.py")}
    assert listed == found | {"lstmfit.likelihoods", "lstmfit.priors", "lstmfit.runs"}


def test_likelihoods_and_priors_know_no_sampler_and_no_tensorflow():
    banned = ("tensorflow", "keras", "mpi4py", "lstmfit.sampling", "lstmfit.driver", "lstmfit.emulator", "lstmfit.cli",
              "lstmfit.simulators", "lstmfit.problem", "lstmfit.config")  # fmt: skip
    for path in sources(TOP / "likelihoods", TOP / "priors"):
        everywhere, _ = imports_of(path)
        for name in everywhere:
            assert not name.startswith(banned), f"{path.name} imports {name}"


def test_likelihoods_and_priors_read_no_private_attributes_of_each_other():
    """A form of a likelihood in another framework uses what it offers to all."""
    for path in sources(TOP / "likelihoods", TOP / "priors"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                assert owner in ("self", "cls"), f"{path.name}:{node.lineno} reads {owner}.{node.attr}"


def test_analysis_never_imports_the_driver():
    for path in sources(PACKAGE / "analysis"):
        everywhere, _ = imports_of(path)
        assert not any(name.startswith(("lstmfit.driver", "lstmfit.cli")) for name in everywhere), path.name


def test_tensorflow_is_imported_in_one_place_and_inside_a_function():
    for path in sources(PACKAGE, TOP / "likelihoods", TOP / "priors"):
        everywhere, at_top = imports_of(path)
        heavy = {name for name in everywhere if name.split(".")[0] in ("tensorflow", "keras")}
        assert not heavy or path.name == "network.py", f"{path} imports {heavy}"
        assert not {name.split(".")[0] for name in at_top} & {"tensorflow", "keras", "mpi4py", "echo21"}, path


def test_only_the_command_line_prints():
    for path in sources(PACKAGE, TOP / "likelihoods", TOP / "priors"):
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), path


ROOMS = [
    ("errors", "constants", "_version"),
    ("schema", "files", "mpi", "plugins"),
    ("yaml_files", "mistakes", "hdf5", "kernels", "workers", "outputs", "echo21_package", "console",
     "notebook", "emulator_source"),
    ("parameters",),
    ("priors", "datasets"),
    ("likelihoods",),
    ("emulator", "simulators"),
    ("sampling",),
    ("config",),
    ("parameter_space", "signal_functions", "data", "spectra", "spectrum_emulator"),
    ("likelihood_calls",),
    ("problem",),
    ("resolved_run", "run_folder"),
    ("analysis",),
    ("driver", "many_fits", "benchmark", "gpu_benchmark", "doctor", "interfaces", "explorer"),
    ("calibration", "evidence", "checks"),
    ("cli",),
    ("__main__",),
]
"""Packages and modules, lowest first: each imports from the rows above it, and from its own row, but never from below.

`lstmfit/__init__.py` alone reaches up, and only when it is asked for something.
"""


def module_graph():
    """Imports between our modules, those inside functions included."""
    folders = {"lstmfit": PACKAGE, "lstmfit.likelihoods": TOP / "likelihoods", "lstmfit.priors": TOP / "priors"}
    paths = {}
    for prefix, folder in folders.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            paths[".".join([prefix, *(p for p in parts if p != "__init__")])] = path
    return {name: {m for m in imports_of(path)[0] if m in paths and m != "lstmfit"} for name, path in paths.items()}


def test_imports_go_down_through_the_rooms():
    row = {room: i for i, rooms in enumerate(ROOMS) for room in rooms}
    graph = module_graph()
    assert {name.split(".")[1] for name in graph if "." in name} == set(row)
    for name, imported in graph.items():
        for other in imported if "." in name else ():
            upper, lower = name.split(".")[1], other.split(".")[1]
            assert row[lower] <= row[upper], f"{name} imports {other}"


def test_no_circles():
    graph = {
        name: {other for other in imported if other != name and not name.startswith(f"{other}.")}
        for name, imported in module_graph().items()
    }
    while leaves := [name for name, imported in graph.items() if not imported & set(graph)]:
        for name in leaves:
            del graph[name]
    assert not graph, f"each of these imports another of them: {sorted(graph)}"


def test_the_run_file_loads_no_sampler_and_nothing_heavy():
    loaded = modules_after("import lstmfit.config")
    assert not loaded & {"pandas", "scipy", "numba", "anesthetic", "jax", "h5py", "matplotlib"}
    assert not {name for name in loaded if name.startswith(("lstmfit.sampling.polychord", "lstmfit.sampling.nautilus"))}
    assert "lstmfit.sampling.blackjax" not in loaded
