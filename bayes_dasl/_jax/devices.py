"""JAX's set-up: double precision from the import on, compiled programs on disk from the first
computation on.
"""

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
    """What `configure` was told, whether JAX knows of it, and the folder that JAX then got."""

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
    """Say now where compiled programs are kept and how many cores compute, instead of leaving it to
    the first fit.

    Importing the package changes one setting of JAX: double precision, unless `JAX_ENABLE_X64` is
    set. The first fit, check, forecast or other computation of the package changes two more, for
    the whole process: the folder of JAX's compilation cache and, with it, that programs are kept
    from 0.1 s of compilation on. They stay as they are where JAX has a folder already
    (`JAX_COMPILATION_CACHE_DIR` or `jax.config`). No other setting is touched.

    Args:
        cache: a folder for compiled programs and what else is worth keeping between processes;
            `True` for the one that `BAYES_DASL_CACHE` names, or the user's cache folder; `False`
            for none.
        cache_bytes: what the compiled programs may take on disk. Each process that computes begins
            by deleting those that have not been used for longest, but none of a folder of JAX's
            own.
        cores: how many threads compute at once on a CPU; all cores that the process may use, unless
            given.

    Raises:
        ModelError: for numbers that make no sense.
    """
    if cache_bytes < 0 or (cores is not None and cores < 1):
        raise ModelError(
            f"cache_bytes must not be negative and cores at least 1, not {cache_bytes} and {cores}"
        )
    _choices.cache, _choices.cache_bytes, _choices.cores, _choices.made_known = (
        cache,
        cache_bytes,
        cores,
        False,
    )
    keep_programs()


def ask_for_double_precision() -> None:
    """For the import of the package."""
    _load_whole("jax", "numpyro")
    if "JAX_ENABLE_X64" not in os.environ:
        jax.config.update("jax_enable_x64", True)


def prepare() -> None:
    """To be called before the package samples.

    Raises:
        BayesDaslError: in single precision, which is too coarse for the posterior of an ODE.
    """
    if not jax.config.jax_enable_x64:
        raise BayesDaslError(
            "JAX computes in single precision, which is too coarse for an ODE's posterior: import "
            "bayes_dasl before "
            "other JAX code, unset JAX_ENABLE_X64, or call jax.config.update('jax_enable_x64', "
            "True)"
        )
    keep_programs()


def keep_programs() -> None:
    """Compilation is most of a short run: let JAX keep its programs on disk, unless the user has
    chosen otherwise.
    """
    if _choices.made_known:
        return
    _choices.made_known = True
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
    # With its first program JAX has looked for a folder, once and for all.
    compilation_cache.reset_cache()
    _choices.folder = programs


def _usable(programs: Path) -> str | None:
    """The folder, if it can be made and written: JAX would warn at every program."""
    try:
        programs.mkdir(parents=True, exist_ok=True)
        _delete_longest_unused(programs, _choices.cache_bytes)
    except OSError:
        return None
    return str(programs) if os.access(programs, os.W_OK) else None


def _delete_longest_unused(folder: Path, most: int) -> None:
    """Until the files of a folder take so many bytes.

    JAX has a bound of its own, which looks at every file whenever it writes one: 0.15 s each time
    for 5000 programs.
    """
    used = [
        (max(s.st_atime, s.st_mtime), s.st_size, f.path)
        for f in os.scandir(folder)
        for s in (f.stat(),)
    ]
    total = sum(size for _, size, _ in used)
    for _, size, path in sorted(used):
        if total <= most:
            return
        Path(path).unlink(missing_ok=True)  # another process may be at it too
        total -= size


def cache_folder() -> Path | None:
    """Where things worth keeping between processes lie; nowhere if `BAYES_DASL_CACHE` is `off`.

    `BAYES_DASL_CACHE` names another folder than the user's own cache folder, and `configure` is
    heard first.
    """
    if not isinstance(_choices.cache, bool):
        return Path(_choices.cache)
    chosen = os.environ.get("BAYES_DASL_CACHE", "")
    if not _choices.cache or chosen.lower() == "off":
        return None
    return (
        Path(chosen) if chosen else Path(platformdirs.user_cache_dir("bayes_dasl", appauthor=False))
    )


def computing_devices() -> list[Any]:
    """All devices of the kind that JAX computes on by default."""
    default = jax.config.jax_default_device
    return jax.devices() if default is None else jax.devices(getattr(default, "platform", default))


def cores() -> int:
    """How many threads may compute at once on a CPU."""
    if _choices.cores is not None:
        return _choices.cores
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load_whole(*packages: str) -> None:
    """Undo what a lazy stand-in leaves behind.

    `import arviz` puts lazy modules in the place of jax and numpyro, if it comes first; a submodule
    that is imported through one is then missing from its parent ("module 'numpyro.distributions'
    has no attribute 'distribution'").
    """
    _ = jax.__version__, numpyro.__version__
    for name, module in list(sys.modules.items()):
        parent, _, child = name.rpartition(".")
        if name.startswith(tuple(f"{p}." for p in packages)) and child not in vars(
            sys.modules[parent]
        ):
            setattr(sys.modules[parent], child, module)
