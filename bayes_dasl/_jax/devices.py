"""The set-up of JAX: double precision, the cache of compiled programs, devices and cores."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpyro
import platformdirs

from ..errors import BayesDaslError, ModelError

_GIBIBYTE = 2**30


@dataclasses.dataclass
class _Choices:
    """The settings of this process.

    Args:
        cache: the argument of `configure`.
        cache_bytes: the argument of `configure`.
        cores: the argument of `configure`.
        made_known: whether the settings were passed to JAX.
        folder: the cache folder that was passed to JAX; None for no folder.
    """

    cache: str | os.PathLike[str] | bool = True
    cache_bytes: int = 2 * _GIBIBYTE
    cores: int | None = None
    made_known: bool = False
    folder: str | None = None


_choices = _Choices()


def configure(
    *,
    cache: str | os.PathLike[str] | bool = True,
    cache_bytes: int = 2 * _GIBIBYTE,
    cores: int | None = None,
) -> None:
    """Set the cache folder of compiled programs and the number of cores.

    Call it before the first fit. Without a call the defaults hold.

    Importing the package switches JAX to double precision, unless `JAX_ENABLE_X64` is set. If JAX
    is not loaded yet, the package sets this variable, which child processes inherit. The
    first computation of the package changes two more settings of JAX for the whole process: the
    folder of the compilation cache, and the smallest compilation time of a cached program, 0.1 s.
    Unless `cache` is a folder, both stay unchanged if JAX has a cache folder already, from
    `JAX_COMPILATION_CACHE_DIR` or `jax.config`. No other setting is changed.

    Args:
        cache: a folder for compiled programs and other files that processes share. `True` is the
            folder named by the environment variable `BAYES_DASL_CACHE`, else the user's cache
            folder. `False` is no cache.
        cache_bytes: the largest size of all compiled programs on disk. Each process first deletes
            the programs that were unused for longest. Programs in a folder that was set for JAX
            itself are never deleted.
        cores: the number of threads that compute at once on a CPU. By default all cores that the
            process may use.

    Raises:
        ModelError: if `cache_bytes` is negative, or `cores` is less than 1.
    """
    if cache_bytes < 0 or (cores is not None and cores < 1):
        raise ModelError(
            f"cache_bytes must not be negative and cores at least 1, not {cache_bytes} and {cores}"
        )
    _choices.cache = cache
    _choices.cache_bytes = cache_bytes
    _choices.cores = cores
    _choices.made_known = False
    keep_programs()


def ask_for_double_precision() -> None:
    """Switch JAX to double precision, unless `JAX_ENABLE_X64` is set; called on import."""
    _load_whole("jax", "numpyro")
    if "JAX_ENABLE_X64" not in os.environ:
        jax.config.update("jax_enable_x64", True)


def prepare() -> None:
    """Check the precision of JAX and set up its cache; called before each computation.

    Raises:
        BayesDaslError: if JAX uses single precision, which is too coarse for an ODE's posterior.
    """
    if not jax.config.jax_enable_x64:
        raise BayesDaslError(
            "JAX computes in single precision, which is too coarse for an ODE's posterior: import "
            "bayes_dasl before other JAX code, unset JAX_ENABLE_X64, or call "
            "jax.config.update('jax_enable_x64', True)"
        )
    keep_programs()


def keep_programs() -> None:
    """Set JAX's cache folder for compiled programs, unless the user has set one for JAX.

    The cache is useful because compilation takes most of the time of a short run.
    """
    if _choices.made_known:
        return
    _choices.made_known = True
    # A folder that this function did not set is the user's own choice for JAX.
    now = jax.config.jax_compilation_cache_dir
    of_the_user = now != _choices.folder or (
        now is None and "JAX_COMPILATION_CACHE_DIR" in os.environ
    )
    if of_the_user and isinstance(_choices.cache, bool):
        return
    folder = cache_folder()
    programs = None if folder is None else _usable(folder / "jax")
    if programs == now:
        return
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_compilation_cache_dir", programs)
    if programs and "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # JAX looks for a folder only once, with its first program: make it look again.
    compilation_cache.reset_cache()
    _choices.folder = programs


def _usable(programs: Path) -> str | None:
    """Create a folder for programs and return its path; None if it cannot be written.

    With a folder that cannot be written, JAX would warn at every program.
    """
    try:
        programs.mkdir(parents=True, exist_ok=True)
        _delete_longest_unused(programs, _choices.cache_bytes)
    except OSError:
        return None
    return str(programs) if os.access(programs, os.W_OK) else None


def _delete_longest_unused(folder: Path, most: int) -> None:
    """Delete the files that were unused for longest, until a folder holds at most `most` bytes.

    JAX's own limit is not used, because it reads the status of every file at each write. That takes
    0.15 s for 5000 programs.
    """
    used = []
    for file in os.scandir(folder):
        status = file.stat()
        used.append((max(status.st_atime, status.st_mtime), status.st_size, file.path))
    total = sum(size for _, size, _ in used)
    for _, size, path in sorted(used):
        if total <= most:
            return
        # Another process may delete the same file at this moment.
        Path(path).unlink(missing_ok=True)
        total -= size


def cache_folder() -> Path | None:
    """Return the folder for files that processes share, or None for no such folder.

    A folder given to `configure` takes precedence, then the environment variable
    `BAYES_DASL_CACHE` (`off` means no folder), then the user's cache folder.
    """
    if not isinstance(_choices.cache, bool):
        return Path(_choices.cache)
    chosen = os.environ.get("BAYES_DASL_CACHE", "")
    if not _choices.cache or chosen.lower() == "off":
        return None
    return Path(chosen or platformdirs.user_cache_dir("bayes_dasl", appauthor=False))


def computing_devices() -> list[Any]:
    """Return all devices of the kind that JAX computes on by default."""
    default = jax.config.jax_default_device
    return jax.devices() if default is None else jax.devices(getattr(default, "platform", default))


def cores() -> int:
    """Return the number of threads that may compute at once on a CPU."""
    if _choices.cores is not None:
        return _choices.cores
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load_whole(*packages: str) -> None:
    """Undo lazy imports of packages: load them, and attach each submodule to its parent.

    If `import arviz` comes first, it replaces jax and numpyro by lazy modules. A submodule that is
    imported through a lazy module is missing in its parent. The error is then "module
    'numpyro.distributions' has no attribute 'distribution'".

    Args:
        packages: the names of the packages.
    """
    _ = jax.__version__, numpyro.__version__
    for name, module in list(sys.modules.items()):
        parent, _, child = name.rpartition(".")
        if name.startswith(tuple(f"{p}." for p in packages)) and child not in vars(
            sys.modules[parent]
        ):
            setattr(sys.modules[parent], child, module)
