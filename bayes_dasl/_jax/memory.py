"""Memory at hand where JAX computes, and what a compiled program needs of it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp

_UNKNOWN = 2 * 2**30
"""Assumed where neither the system nor the device says anything."""


def available() -> int:
    """Bytes at hand on the device that JAX computes on by default.

    On a CPU that is free memory, or what the control groups (v1 or v2) of a container or a batch
    job leave of their limit, if that is less. On an accelerator it is what its allocator may still
    hand out.
    """
    return _at_hand(next(iter(jnp.zeros(()).devices())))


def on_host() -> int:
    """Bytes that this process may still take of the machine's own memory."""
    return max(min([_free(), *_left_by_groups()]), 0)


def _at_hand(device: Any) -> int:
    stats = None if device.platform == "cpu" else device.memory_stats()
    if stats and "bytes_limit" in stats:
        return max(stats["bytes_limit"] - stats.get("bytes_in_use", 0), 0)
    return on_host()


def needed(program: Any) -> int:
    """Bytes that a compiled program takes besides its arguments: temporaries and outputs; 0 if it
    does not say.
    """
    analysis = program.memory_analysis()
    return 0 if analysis is None else analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def _free(root: Path = Path("/")) -> int:
    """Memory that the whole machine can still give, caches included."""
    meminfo = root / "proc" / "meminfo"
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        # macOS does not say what is free: half of what there is.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN


def _left_by_groups(root: Path = Path("/")) -> list[int]:
    """What each control group that this process is in leaves of its limit; those without one are
    left out.
    """
    rooms = [_left_in(folder, *files) for folder, files in _groups(root)]
    return [room for room in rooms if room is not None]


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Folders of the groups, the innermost first, with the names of limit, use, and cache that can
    be dropped.
    """
    listing, mount = root / "proc" / "self" / "cgroup", root / "sys" / "fs" / "cgroup"
    for line in listing.read_text().splitlines() if listing.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, files = (
                mount / "memory",
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            )
        elif not controllers:
            top, files = mount, ("memory.max", "memory.current", "inactive_file")
        else:
            continue
        # A container may not see the folder that is its own from outside, but always the top of its
        # mount.
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(top):
                yield folder, files


def _left_in(folder: Path, limit: str, use: str, cache: str) -> int | None:
    try:
        most = int((folder / limit).read_text())
        used = int((folder / use).read_text())
        entries = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # Pages of files read long ago count as use, and are dropped as soon as memory is asked for.
        return most - used + next((int(size) for name, size in entries if name == cache), 0)
    except (OSError, ValueError):  # no such group, or the limit "max"
        return None
