"""Where a result comes from, so that results of another machine or of other engines are not taken for today's."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "bayes_dasl"


def place() -> str:
    """Machine and versions in words."""
    names = ("jax", "numpyro", "diffrax", "blackjax")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}, {versions}"


def engines() -> str:
    """A hash of the package's engines and layers."""
    files = sorted(path for folder in ("inference", "layers") for path in (PACKAGE / folder).glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
