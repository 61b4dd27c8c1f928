"""Results as lines of JSON, with where they come from: those of another machine or other engines are not today's."""

import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import ROOT

type Result = dict[str, Any]

MODELS = ("model", "noise", "random", "networks", "hybrid", "_trace", "_devices")
PACKAGE = ROOT / "bayes_dasl"


def place() -> str:
    """Machine and versions in words."""
    names = ("jax", "numpyro", "diffrax", "blackjax")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}, {versions}"


def keep(path: Path, result: Result) -> None:
    """Append a result, with where it comes from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(result | {"place": place(), "engines": engines()}) + "\n")


def of_today(path: Path) -> list[Result]:
    """The results so far from this machine and these versions, and for ours from these engines.

    A line that an interruption tore is dropped.
    """
    here, now, results = place(), engines(), []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            result = json.loads(line)
        except json.JSONDecodeError:
            continue
        if result["place"] == here and (result.get("engine", "ours") != "ours" or result["engines"] == now):
            results.append(result)
    return results


def engines() -> str:
    """A hash of all of the package that makes draws: engines, layers, and what models are made of."""
    files = sorted(path for folder in ("inference", "layers") for path in (PACKAGE / folder).glob("*.py"))
    files += [PACKAGE / f"{name}.py" for name in MODELS]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
