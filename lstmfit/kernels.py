"""Functions compiled by numba and kept on disk; what is kept is dropped when any source that it was made from changes.

numba's own cache notices a change of the file that a function is written in, but not of the files whose functions it
inlines: an edited right-hand side would leave the old physics in a compiled integrator. Here the key is a digest of
the function's module and of every module of the same package that it imports, directly or not. So that an error
message does not cost a compilation of a minute, kernels live in modules that import nothing but kernels.
"""

import ast
import contextlib
import functools
import hashlib
import logging
import pickle
import sys
from pathlib import Path

import numba
from numba.core.caching import FunctionCache

log = logging.getLogger(__name__)


def cached_kernel(**options):
    """Decorate a function to be compiled by `numba.njit` and cached on disk.

    Where no folder for the cache can be written (a read-only installation and home) it is compiled in every process.

    Parameters
    ----------
    **options
        Those of `numba.njit`, but ``cache``.

    Returns
    -------
    callable
        The decorator.
    """

    def decorate(function):
        dispatcher = numba.njit(**options)(function)
        try:
            dispatcher._cache = _KernelCache(function)
        except (RuntimeError, OSError):
            dispatcher._cache = _NoCache(function)
        return dispatcher

    return decorate


def sources(module_name: str) -> tuple[str, ...]:
    """Files that a kernel of a module can be made from: its own and those of its package that it imports.

    Parameters
    ----------
    module_name : str
        A module that is imported, or on its way.

    Returns
    -------
    tuple of str
        Paths, sorted.
    """
    package, found, waiting = module_name.partition(".")[0], {}, [module_name]
    while waiting:
        name = waiting.pop()
        path = getattr(sys.modules.get(name), "__file__", None)
        if name in found or path is None:
            continue
        found[name] = path
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
            waiting += [n for n in _imported(node) if n.partition(".")[0] == package and n in sys.modules]
    return tuple(sorted(found.values()))


def _imported(node) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        modules = [f"{node.module}.{alias.name}" for alias in node.names]
        inside = [name for name in modules if name in sys.modules]
        # `from package import module` needs the module and not what else its package imports.
        return inside if len(inside) == len(modules) else [node.module, *inside]
    return []


@functools.cache
def digest(module_name: str) -> str:
    """SHA-256 of the content of `sources`, as the files were when the module was first asked about."""
    content = hashlib.sha256()
    for path in sources(module_name):
        content.update(Path(path).read_bytes())
        content.update(b"\0")
    return content.hexdigest()


class _KernelCache(FunctionCache):
    """numba's cache of one function, with the digest in its key, whose failures cost a compilation and no more."""

    def __init__(self, function):
        super().__init__(function)
        self._module = function.__module__
        self._digest = digest(self._module)

    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), self._digest)

    def load_overload(self, sig, target_context):
        try:
            found = super().load_overload(sig, target_context)
        # Whatever a damaged file makes pickle raise.
        except (OSError, EOFError, ValueError, TypeError, AttributeError, ImportError, IndexError, KeyError,
                pickle.UnpicklingError) as error:  # fmt: skip
            log.debug("numba's cache of %s cannot be read (%s)", self._name, error)
            found = None
            with contextlib.suppress(OSError):
                # A damaged index would also keep the new code from being saved.
                self.flush()
        if found is None:
            _say_compiling()
        return found

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except (OSError, EOFError, ValueError, TypeError, AttributeError, pickle.UnpicklingError) as error:
            _say_uncached(str(error))


class _NoCache:
    """What stands in for a cache where no folder can be written."""

    cache_path = None

    def __init__(self, function):
        self._module = function.__module__

    def load_overload(self, sig, target_context):
        _say_uncached("no folder for it can be written")

    def save_overload(self, sig, data):
        """Keep nothing."""

    def enable(self):
        """There is nothing to enable."""

    disable = flush = enable


@functools.cache
def _say_compiling():
    log.info("compiling for this processor, which takes up to a minute; cached for next time")


@functools.cache
def _say_uncached(why):
    log.warning(
        "compiled code is not kept, so that every process compiles for up to a minute (%s); "
        "set NUMBA_CACHE_DIR to a folder that can be written",
        why,
    )
