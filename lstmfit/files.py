"""Atomic writing of files, and checks of paths."""

import contextlib
import errno
import hashlib
import os
from pathlib import Path

from lstmfit.errors import InputError

AnyPath = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path next to `path`, which is renamed to `path` if the block ends without an error.

    Parameters
    ----------
    path : str or pathlib.Path
        File to create or replace.

    Yields
    ------
    pathlib.Path
        Temporary file to write. It is removed if the block raises.

    Raises
    ------
    InputError
        `path` is a folder, a device, a pipe or a socket.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        # Renaming a file to /dev/null would remove the device for the whole machine.
        what = "a folder" if path.is_dir() else "not a regular file"
        raise InputError(f"cannot write {path}: it is {what}; give another path")
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def user_path(text, what: str = "path") -> Path:
    """A path given by the user, with ~ expanded.

    Parameters
    ----------
    text : str or pathlib.Path
        The path.
    what : str
        Description of the path for the message.

    Raises
    ------
    InputError
        The path is empty or too long, or its ~user does not exist.
    """
    name = os.fspath(text)
    if not name or "\0" in name:
        raise InputError(f"{what} is {name!r}; give the name of a file or folder")
    if any(len(os.fsencode(part)) > 255 for part in Path(name).parts) or len(os.fsencode(name)) > 4000:
        raise InputError(f"{what} {name} is too long: a name can have 255 bytes and a path 4000; shorten it")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise InputError(f"{what} {name}: there is no such user; give the full path of the home folder") from None


def check_writable(path) -> None:
    """Check that a file can be written, before anything is computed for it.

    Raises
    ------
    InputError
        The path is a folder, or its folder does not exist or is not writable.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give a file")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}; create it or give another path")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: no permission in {path.parent}; give another path")


def write_text(path, text: str) -> None:
    """Write a text file through `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(*paths) -> str:
    """Hexadecimal SHA-256 of the content of one file, or of several, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path, message: str):
    """Lock a folder or a lock file, which is created if missing. The lock ends with the process, however it ends.

    Parameters
    ----------
    path : path
        A folder, or a file in an existing folder.
    message : str
        Message if another process has the lock.

    Raises
    ------
    InputError
        Another process has the lock.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDONLY if Path(path).is_dir() else os.O_WRONLY | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(message) from None
        yield
    finally:
        os.close(descriptor)


UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Full disk, full quota, read-only file system, missing permission."""


@contextlib.contextmanager
def writing_into(where, remedy: str):
    """Convert errors from a full disk, a read-only folder or missing permission to one line.

    Parameters
    ----------
    where : path
        Path for the message, if the error does not say which file.
    remedy : str
        What to do after fixing the problem.

    Raises
    ------
    InputError
        Instead of such an `OSError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "free some space" if full else "fix this or choose another folder with -o"
        raise InputError(f"cannot write {error.filename or where}: {error.strerror}; {what}, {remedy}") from error
