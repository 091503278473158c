"""What is committed: no paths of anybody's machine, no file that does not belong into git."""

import gzip
import re
import subprocess
from pathlib import Path

TOP = Path(__file__).parents[1]
MACHINE = re.compile(rb"/(?:work|root|home/\w+|Users/\w+|tmp/\w+)/")


def committed():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, check=True)
    return [TOP / name for name in done.stdout.decode().split("\0") if name]


def test_no_paths_of_a_machine_are_committed():
    """They leak where a file was made, and fail everywhere else."""
    found = []
    for path in committed():
        if not path.is_file() or path.suffix in (".h5", ".hdf5", ".png") or path == Path(__file__):
            continue
        content = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
        found += [f"{path.relative_to(TOP)}: {hit.decode()}" for hit in MACHINE.findall(content)]
    assert not found


def test_no_large_files_but_weights_are_committed():
    large = [p.name for p in committed() if p.is_file() and p.stat().st_size > 2e6]
    assert all(name.endswith(".h5") for name in large), large
