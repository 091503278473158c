"""Was this process started by an MPI launcher? Asked without starting MPI."""

import multiprocessing
import os

_LAUNCHER_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS")


def launched() -> bool:
    """True under mpirun and its kin, but not in the children that a rank spawns for itself."""
    return any(name in os.environ for name in _LAUNCHER_VARIABLES) and multiprocessing.parent_process() is None
