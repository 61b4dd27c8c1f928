"""Available memory on the device and the host, and the memory that a program needs."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp

# Bytes assumed if neither the system nor the device reports a number.
_UNKNOWN = 2 * 2**30


def available() -> int:
    """Return the number of available bytes on JAX's default device.

    On a CPU this is the free memory. In a container or batch job it is at most the unused part of
    the limit of a Linux control group (version 1 or 2). On an accelerator it is the unused part of
    the memory of JAX's allocator.
    """
    return _at_hand(next(iter(jnp.zeros(()).devices())))


def on_host() -> int:
    """Return the number of bytes of main memory that this process may still allocate."""
    return max(min([_available_memory(), *_left_by_groups()]), 0)


def _at_hand(device: Any) -> int:
    """Return the number of available bytes on a device."""
    stats = None if device.platform == "cpu" else device.memory_stats()
    if stats and "bytes_limit" in stats:
        return max(stats["bytes_limit"] - stats.get("bytes_in_use", 0), 0)
    return on_host()


def needed(program: Any) -> int:
    """Return the bytes that a compiled program needs for temporaries and results.

    The number is 0 if the program reports none.
    """
    analysis = program.memory_analysis()
    return 0 if analysis is None else analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def _available_memory(root: Path = Path("/")) -> int:
    """Return the available bytes of main memory of the machine, including caches.

    Args:
        root: the root of the file system; tests replace it.
    """
    meminfo = root / "proc" / "meminfo"
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        # macOS does not report its free memory: assume half of all memory.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN


def _left_by_groups(root: Path = Path("/")) -> list[int]:
    """Return the unused bytes of each control group of this process that has a limit."""
    rests = [_left_in(folder, *files) for folder, files in _control_groups(root)]
    return [rest for rest in rests if rest is not None]


def _control_groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Yield the control groups of this process, the innermost first.

    Yields:
        The folder of the group, and three names: of the file with the limit, of the file with the
        used memory, and of the entry for cached pages in `memory.stat`.
    """
    listing = root / "proc" / "self" / "cgroup"
    mount = root / "sys" / "fs" / "cgroup"
    for line in listing.read_text().splitlines() if listing.is_file() else ():
        _, controllers, path = line.split(":", 2)
        # Version 1 lists the controllers of each hierarchy, version 2 has one hierarchy for all.
        if "memory" in controllers.split(","):
            top = mount / "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif not controllers:
            top = mount
            files = ("memory.max", "memory.current", "inactive_file")
        else:
            continue
        # A container may not see its folder under the outer path, but always the top of its mount.
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(top):
                yield folder, files


def _left_in(folder: Path, limit: str, use: str, cache: str) -> int | None:
    """Return the unused bytes of a control group; None if it has no limit.

    Args:
        folder: the folder of the group.
        limit: the name of the file with the limit.
        use: the name of the file with the used memory.
        cache: the name of the entry for cached pages.
    """
    try:
        most = int((folder / limit).read_text())
        used = int((folder / use).read_text())
        entries = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # The use includes cached pages of files, which the system drops when memory is asked for.
        return most - used + next((int(size) for name, size in entries if name == cache), 0)
    except (OSError, ValueError):  # no such folder, or the limit "max"
        return None
