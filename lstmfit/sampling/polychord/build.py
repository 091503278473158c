"""Build PolyChord 1.14 into the active environment, from the copy included in PyPI's `cosmosis`.

From a shell, run ``python -m lstmfit.sampling.polychord.build``. Only the PolyChord folder of the archive is unpacked
and compiled; cosmosis itself is not installed. If `pypolychord` is installed, none of this is needed.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from lstmfit.errors import InputError

COSMOSIS_VERSION = "3.26"
COSMOSIS_SHA256 = "bbeed481411d2bfa83d0b14bcc3d16a0b80dcf1c1f099e5066d10e4711c36508"
POLYCHORD_VERSION = "1.14"
SOURCE_FOLDER = f"cosmosis-{COSMOSIS_VERSION}/cosmosis/samplers/polychord/polychord_src/"
SERIAL_LIBRARY = "libchord.so"
MPI_LIBRARY = "libchord_mpi.so"
CHANGES = "changed by lstmfit: grade_frac above 1 is a number of repeats, as in 1.22.2"
"""Our changes to the published source; PolyChord's licence requires that they are stated."""
# PolyChord 1.14 derives the number of repeats from the measured time of each speed, so runs are not reproducible.
# 1.22.2 takes fractions above 1 as numbers of repeats; the replacements give 1.14 the same rule.
_TIMING = "call time_speeds(loglikelihood,prior,settings,RTI,speed,mpi_information)"
_BY_TIME = (
    "RTI%num_repeats(2:) = nint(settings%grade_frac(2:)/(settings%grade_frac(1)+0d0)*RTI%num_repeats(1)"
    "*speed(1)/speed(2:))"
)
REPLACEMENTS = {
    "generate.F90": {
        _TIMING: f"if (any(settings%grade_frac<=1)) {_TIMING}",
        _BY_TIME: f"""if (any(settings%grade_frac<=1)) then
                {_BY_TIME}
            else
                RTI%num_repeats = nint(settings%grade_frac)
            end if""",
    }
}
TERMS = (
    "PolyChord is free for academic, research and other non-commercial use only (its licence: {licence}); work that "
    "uses it must cite Handley, Hobson & Lasenby 2015a (MNRAS 450 L61, arXiv:1502.01856) and 2015b (MNRAS 453 4384, "
    "arXiv:1506.00171)"
)

logger = logging.getLogger(__name__)


def polychord_folder() -> Path:
    """Folder of the active environment for the built library, whether or not it exists yet."""
    return Path(sys.prefix) / "share" / "lstmfit" / "polychord"


def install_polychord(force=False, log=None) -> Path:
    """Build PolyChord into the active environment unless it is already installed.

    If `mpif90` is on the PATH, the MPI library is built as well, also when only the serial library is installed. The
    folder is built under a temporary name and renamed, so that it is never incomplete.

    Parameters
    ----------
    force : bool
        Build even if the libraries exist.
    log : callable, optional
        Called with one line of text at a time; the module's logger by default.

    Returns
    -------
    pathlib.Path
        Folder with `libchord.so`, `libchord_mpi.so` (if MPI was found), PolyChord's `LICENCE` and `VERSION.json`.

    Raises
    ------
    InputError
        A compiler or make is missing, the download or the build failed, or the environment is read-only.
    """
    log = log or logger.info
    folder = polychord_folder()
    mpi = shutil.which("mpif90") is not None
    whole = (folder / SERIAL_LIBRARY).is_file() and ((folder / MPI_LIBRARY).is_file() or not mpi)
    if whole and not force and read_record(folder).get("changes") == CHANGES:
        log(f"PolyChord {POLYCHORD_VERSION} ({CHANGES}) is already installed in {folder}")
        log(TERMS.format(licence=folder / "LICENCE"))
        return folder
    _require_tools()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        workplace = tempfile.TemporaryDirectory(prefix=".polychord-", dir=folder.parent)
    except OSError as error:
        raise InputError(
            f"PolyChord cannot be installed into {folder} ({error.strerror}); use an environment that you can write "
            "to: python3 -m venv"
        ) from error
    # On the same file system as the target, so that the final rename is atomic.
    with workplace as work:
        work = Path(work)
        archive = _download(work / "download", log)
        built = _compile(archive, work, mpi, log)
        _replace_folder(built, folder, work)
    if not mpi:
        log(
            "mpif90 was not found, so mpirun will not work; to fix this: apt-get install libopenmpi-dev openmpi-bin, "
            "then repeat this command"
        )
    log(f"PolyChord {POLYCHORD_VERSION} ({CHANGES}) was installed into {folder}")
    log(TERMS.format(licence=folder / "LICENCE"))
    return folder


def read_record(folder: Path) -> dict:
    """Content of `VERSION.json`; empty if there is none."""
    try:
        return json.loads((folder / "VERSION.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _require_tools():
    missing = [tool for tool in ("gfortran", "make") if shutil.which(tool) is None]
    if missing:
        raise InputError(
            f"PolyChord cannot be built: {' and '.join(missing)} not found on the PATH, but gfortran and make are "
            "required; to fix this: apt-get install gfortran make libopenmpi-dev openmpi-bin"
        )


def _download(folder: Path, log) -> Path:
    """Download the archive with pip, which also checks its hash."""
    folder.mkdir()
    requirements = folder / "requirements.txt"
    requirements.write_text(f"cosmosis=={COSMOSIS_VERSION} --hash=sha256:{COSMOSIS_SHA256}\n", encoding="utf-8")
    log(f"downloading cosmosis {COSMOSIS_VERSION}, which includes PolyChord, from the package index")
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", ":all:", "--dest", str(folder), "--requirement", str(requirements)]
    _run(
        command,
        f"pip could not download cosmosis {COSMOSIS_VERSION}",
        "check the network and pip's index, then try again",
    )
    return folder / f"cosmosis-{COSMOSIS_VERSION}.tar.gz"


def _compile(archive: Path, work: Path, mpi: bool, log) -> Path:
    """Compile the serial and the MPI library in parallel; return the folder to install."""
    libraries = {SERIAL_LIBRARY: work / "serial"} | ({MPI_LIBRARY: work / "mpi"} if mpi else {})
    log(f"compiling {' and '.join(libraries)}; this takes about half a minute")
    # These environment variables of cosmosis would change the compiler flags.
    environment = {k: v for k, v in os.environ.items() if k not in ("COSMOSIS_SRC_DIR", "COSMOSIS_DEBUG", "MAKEFLAGS")}
    # The Makefile lacks the dependencies between modules, so each make is serial. Each library is built from its own
    # copy of the sources, because both write the same .mod files.
    running = {}
    for library, source in libraries.items():
        _unpack(archive, source)
        _change(source)
        output = (source / "make.log").open("wb")
        command = ["make", "-j1", "-C", str(source), "FC=gfortran", f"MPIFC={'mpif90' if mpi else ''}", library]
        running[library] = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT), output
    for process, output in running.values():
        process.wait()
        output.close()
    built = work / "polychord"
    built.mkdir()
    for library, (process, _) in running.items():
        source = libraries[library]
        if process.returncode:
            lines = (source / "make.log").read_text(encoding="utf-8", errors="replace").splitlines()
            errors = [line for line in lines if re.search(r"Error:|error:|\*\*\*", line)] or lines or ["no output"]
            raise InputError(
                f"{library} did not compile ({errors[0].strip()}); it needs gfortran 9 or later and, for MPI, a "
                "matching mpif90: apt-get install gfortran make libopenmpi-dev openmpi-bin"
            )
        shutil.copy2(source / library, built / library)
    shutil.copy2(libraries[SERIAL_LIBRARY] / "LICENCE", built / "LICENCE")
    record = {
        "version": POLYCHORD_VERSION,
        "source": f"cosmosis {COSMOSIS_VERSION}, source distribution on PyPI, folder {SOURCE_FOLDER}",
        "sha256": COSMOSIS_SHA256,
        "changes": CHANGES,
        "compiler": _first_line(["gfortran", "--version"]),
        "mpi_compiler": _first_line(["mpif90", "--version"]) if mpi else None,
        "mpi": _first_line(["mpirun", "--version"]) if mpi else None,
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    (built / "VERSION.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return built


def _unpack(archive: Path, folder: Path):
    """Unpack only PolyChord's sources."""
    folder.mkdir()
    with tarfile.open(archive) as file:
        for member in file:
            name = member.name.removeprefix(SOURCE_FOLDER)
            if member.isfile() and name != member.name and "/" not in name:
                (folder / name).write_bytes(file.extractfile(member).read())


def _change(folder: Path):
    """Apply `REPLACEMENTS` to the unpacked sources; each must match at least once."""
    for name, replacements in REPLACEMENTS.items():
        path = folder / name
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            for old, new in replacements.items():
                if old not in text:
                    raise InputError(
                        f"{name} of cosmosis {COSMOSIS_VERSION} differs from the expected source; please report this"
                    )
                text = text.replace(old, new)
            path.write_text(text, encoding="utf-8")


def _replace_folder(new: Path, folder: Path, work: Path):
    if folder.exists():
        folder.rename(work / "old")
    new.rename(folder)


def _first_line(command) -> str | None:
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    except OSError:
        return None
    return lines[0] if lines else None


def _run(command, what, remedy):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or [f"exit status {done.returncode}"]
        raise InputError(f"{what} ({errors[0]}); {remedy}")


def main() -> int:
    """Install PolyChord and print each step; returns the exit status of the command line."""
    try:
        install_polychord(force="--force" in sys.argv[1:], log=lambda line: sys.stdout.write(line + "\n"))
    except InputError as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
