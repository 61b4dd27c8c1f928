"""JAX's set-up: double precision, a CPU device for each core, compiled programs kept in the user's cache folder."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpyro
import platformdirs

from .._errors import BayesDaslError

# The first is what JAX moves to, and will go with the old way; the second is the size, in bytes, of what stays inside.
_ARRAYS_AS_ARGUMENTS = {"jax_use_simplified_jaxpr_constants": True, "jax_embedded_constants_max_bytes": 0}


def configure() -> None:
    """Ask for double precision and a CPU device for each core, unless the user has chosen otherwise.

    Both must be set before JAX computes anything; if it already has, the devices stay as they are.
    """
    _load_whole("jax", "numpyro")
    if "JAX_ENABLE_X64" not in os.environ:
        jax.config.update("jax_enable_x64", True)
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen and "JAX_NUM_CPU_DEVICES" not in os.environ:
        # If JAX has computed already, chains share the one device.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", _cores())
    _keep_compiled_programs()


def _keep_compiled_programs() -> None:
    """Compilation is most of a short run: let JAX keep its programs on disk, unless the user has chosen otherwise.

    Arrays that a program closes over become arguments of it, so that the same model with other data needs no new one.
    """
    for name, value in _ARRAYS_AS_ARGUMENTS.items():
        if name.upper() not in os.environ and hasattr(jax.config, name):
            jax.config.update(name, value)
    folder = cache_folder()
    if folder is None or jax.config.jax_compilation_cache_dir is not None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    programs = folder / "jax"
    try:
        programs.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(programs, os.W_OK):  # JAX would warn at every program
        return
    jax.config.update("jax_compilation_cache_dir", str(programs))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def cache_folder() -> Path | None:
    """Where things worth keeping between processes lie; nowhere if `BAYES_DASL_CACHE` is `off`.

    `BAYES_DASL_CACHE` names another folder than the user's own cache folder.
    """
    chosen = os.environ.get("BAYES_DASL_CACHE", "")
    if chosen.lower() == "off":
        return None
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("bayes_dasl", appauthor=False))


def computing_devices() -> list[Any]:
    """The devices that chains are spread over: all of the kind that JAX computes on by default."""
    default = jax.config.jax_default_device
    return jax.devices() if default is None else jax.devices(getattr(default, "platform", default))


def evenly_loaded_devices(count: int) -> list[Any]:
    """As many of them as divide a number of items that must lie evenly."""
    available = computing_devices()
    return available[: max(n for n in range(1, len(available) + 1) if count % n == 0)]


def _load_whole(*packages: str) -> None:
    """Undo what a lazy stand-in leaves behind.

    `import arviz` puts lazy modules in the place of jax and numpyro; a submodule that is imported through one
    is then missing from its parent ("module 'numpyro.distributions' has no attribute 'distribution'").
    """
    _ = jax.__version__, numpyro.__version__
    for name, module in list(sys.modules.items()):
        parent, _, child = name.rpartition(".")
        if name.startswith(tuple(f"{p}." for p in packages)) and child not in vars(sys.modules[parent]):
            setattr(sys.modules[parent], child, module)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_double_precision() -> None:
    """Refuse to sample in single precision, which is too coarse for the posterior of an ODE.

    Raises: BayesDaslError that says how to switch double precision on.
    """
    if not jax.config.jax_enable_x64:
        raise BayesDaslError(
            "JAX computes in single precision, which is too coarse for an ODE's posterior: import bayes_dasl before "
            "other JAX code, unset JAX_ENABLE_X64, or call jax.config.update('jax_enable_x64', True)"
        )
