"""Time to hand a point to another process and wait for the answer, the least that a server of batches would add.

python benchmarks/handover.py

Two processes on one core wake each other through eventfd, with the point in shared memory: no Python library hands over
faster. Prints the smallest mean of 20 repeats in microseconds per call. Results: docs/results/scaling.md.
"""

import os
import time

CALLS, REPEATS = 2000, 20


def main():
    """Measure and print."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    ask, answer = os.eventfd(0), os.eventfd(0)
    if not os.fork():
        for _ in range(CALLS * REPEATS):
            os.eventfd_read(ask)
            os.eventfd_write(answer, 1)
        os._exit(0)
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(CALLS):
            os.eventfd_write(ask, 1)
            os.eventfd_read(answer)
        times.append((time.perf_counter() - began) / CALLS)
    os.wait()
    print(f"{1e6 * min(times):.1f} us per call")


if __name__ == "__main__":
    main()
