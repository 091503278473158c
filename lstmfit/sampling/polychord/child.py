"""The child process of a serial run: it does one part after the other, and tells its parent what happens."""

import os
import pickle
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path

from lstmfit.errors import InputError
from lstmfit.sampling.polychord.run import run_polychord
from lstmfit.sampling.state import ROOT


def run_child(descriptor: int) -> None:
    """Run the parts that the parent sends, one after the other; the process ends here.

    Parameters
    ----------
    descriptor : int
        File descriptor of the connection to the parent, see `lstmfit.sampling.polychord.parts`.
    """
    channel = connection.Connection(descriptor)
    # Ctrl-C reaches every process of the terminal. The parent decides whether to stop, and closes the channel if so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 0
    try:
        problem = None
        while True:
            main, payload, settings, folder = channel.recv()
            _write_to(Path(folder) / "log.txt")
            if problem is None:
                if main is not None:
                    _import_main(main)
                problem = pickle.loads(payload)()
            result = run_polychord(
                problem,
                folder,
                ROOT,
                settings,
                posteriors=False,
                # A part that has finished returns its result immediately; one without files starts over.
                resume=True,
                progress=lambda progress: channel.send(("progress", progress)),
                # The parent sends nothing during a run, so the channel only becomes readable when it closes it or dies.
                stop=channel.poll,
            )
            if not result.finished:
                break
            channel.send(("result", result))
    except (BrokenPipeError, ConnectionResetError, EOFError):
        pass
    except BaseException as error:
        status = 1
        message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):
            channel.send(("input error" if isinstance(error, InputError) else "error", message))
        # Last, because the disk with the log may be full.
        with suppress(OSError):
            traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Skip the interpreter's clean-up, which might crash with a thread asleep inside Fortran.
    os._exit(status)


def _write_to(path):
    """Append the output of this process, also that of Fortran, to a file."""
    with path.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


def _import_main(path):
    """Import the parent's script as `__main__`, without running the code under its `if __name__` line."""
    import runpy
    import types

    module = types.ModuleType("__mp_main__")
    module.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
