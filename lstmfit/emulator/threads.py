"""Distribute the rows of a batch over threads, for compiled code that releases the GIL.

numba's parallel loops are not used. With GNU OpenMP they kill the children of a process that forks after running one,
and the threading layer that survives a fork cannot be called from two threads at a time.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

_pool: ThreadPoolExecutor | None = None
_lock = threading.Lock()


def _forget_pool():
    """Reset the pool in a forked child, which has neither its threads nor a way to release a lock held at the fork."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _make_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            # Threads are only started when needed; this is the maximum.
            _pool = ThreadPoolExecutor(max_workers=256, thread_name_prefix="lstmfit")
        return _pool


def share_out(work, n: int, block: int, threads: int) -> None:
    """Call ``work(first, last)`` for parts of the rows 0..n-1 in parallel.

    Parameters
    ----------
    work : callable
        Processes the rows first..last-1; must be thread-safe and release the GIL.
    n : int
        Number of rows.
    block : int
        Number of rows processed together; `first` is a multiple of it.
    threads : int
        Maximum number of threads, including the calling one.
    """
    blocks = -(-n // block)
    parts = min(blocks, threads)
    if parts <= 1:
        work(0, n)
        return
    ends = [min(n, block * (blocks * i // parts)) for i in range(parts + 1)]
    ends[-1] = n
    pool = _pool or _make_pool()
    others = [pool.submit(work, *pair) for pair in zip(ends[1:-1], ends[2:])]
    work(ends[0], ends[1])
    for other in others:
        other.result()
