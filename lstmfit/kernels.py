"""Functions compiled by numba and cached on disk; the cache is invalidated if any of their sources changes.

numba's own cache notices changes in the file of a function, but not in the files of the functions that it inlines: an
edited right-hand side would leave the old physics in a compiled integrator. Here the cache key is a digest of the
function's module and of every module of the same package that it imports, directly or indirectly. Kernels live in
modules that import nothing but kernels, so that other changes do not require a compilation of up to a minute.
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
from numba.core.caching import FunctionCache, IndexDataCacheFile

log = logging.getLogger(__name__)


def cached_kernel(**options):
    """Decorate a function to be compiled by `numba.njit` and cached on disk.

    If no cache folder is writable (read-only installation and home folder), it is compiled in every process.

    Parameters
    ----------
    **options
        Options of `numba.njit`, except ``cache``.

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
    """Source files of the kernels of a module: its own and those of the package that it imports.

    Parameters
    ----------
    module_name : str
        A module that has been imported, or is being imported.

    Returns
    -------
    tuple of str
        Sorted paths.
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
        # `from package import module` depends on the module, but not on the package's other imports.
        return inside if len(inside) == len(modules) else [node.module, *inside]
    return []


@functools.cache
def digest(module_name: str) -> str:
    """SHA-256 of the content of `sources` at the first call for the module."""
    content = hashlib.sha256()
    for path in sources(module_name):
        content.update(Path(path).read_bytes())
        content.update(b"\0")
    return content.hexdigest()


class _CheckedFile(IndexDataCacheFile):
    """Compiled code with a digest of its own, because damaged code would crash, or give other numbers."""

    def _save_data(self, name, data):
        content = self._dump(data)
        super()._save_data(name, (hashlib.sha256(content).digest(), content))

    def _load_data(self, name):
        expected, content = super()._load_data(name)
        if hashlib.sha256(content).digest() != expected:
            raise ValueError(f"{name} is damaged")
        return pickle.loads(content)


class _KernelCache(FunctionCache):
    """numba's cache of one function, with the digest in its key; a failure only costs a compilation."""

    def __init__(self, function):
        super().__init__(function)
        implementation = self._impl
        self._cache_file = _CheckedFile(
            self._cache_path, implementation.filename_base, implementation.locator.get_source_stamp()
        )
        self._module = function.__module__
        self._digest = digest(self._module)

    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), self._digest)

    def load_overload(self, sig, target_context):
        try:
            found = super().load_overload(sig, target_context)
        # A damaged file can make pickle raise any of these.
        except (OSError, EOFError, ValueError, TypeError, AttributeError, ImportError, IndexError, KeyError,
                pickle.UnpicklingError) as error:  # fmt: skip
            log.debug("numba's cache of %s cannot be read (%s)", self._name, error)
            found = None
            with contextlib.suppress(OSError):
                # A damaged index would also prevent the new code from being saved.
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
    """Substitute for the cache if no folder is writable."""

    cache_path = None

    def __init__(self, function):
        self._module = function.__module__

    def load_overload(self, sig, target_context):
        _say_uncached("no cache folder is writable")

    def save_overload(self, sig, data):
        """Do nothing."""

    def enable(self):
        """Do nothing."""

    disable = flush = enable


@functools.cache
def _say_compiling():
    log.info("compiling for this processor, which takes up to a minute; the result is cached")


@functools.cache
def _say_uncached(why):
    log.warning(
        "compiled code cannot be cached, so every process compiles for up to a minute (%s); "
        "set NUMBA_CACHE_DIR to a writable folder",
        why,
    )
