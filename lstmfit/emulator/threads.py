"""Share the rows of a batch out over threads, for compiled code that releases the interpreter's lock.

numba's own parallel loops are not used: a process that has run one by GNU OpenMP is killed in its forked children,
and by the layer that survives a fork it may not be called from two threads at a time.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

_pool: ThreadPoolExecutor | None = None
_lock = threading.Lock()


def _forget_pool():
    """A forked child has the pool but not its threads, and perhaps a lock that nobody will release."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _make_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            # Threads are started when they are first needed, up to this many.
            _pool = ThreadPoolExecutor(max_workers=256, thread_name_prefix="lstmfit")
        return _pool


def share_out(work, n: int, block: int, threads: int) -> None:
    """Call ``work(first, last)`` for parts of 0..n, side by side.

    Parameters
    ----------
    work : callable
        Does the rows first..last-1; safe from several threads, and without the interpreter's lock.
    n : int
        Rows.
    block : int
        Rows that belong together: `first` is a multiple of it.
    threads : int
        At most this many at a time, the calling one included.
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
