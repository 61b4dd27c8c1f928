"""Options of `bayes-dasl run` that change a study: a quick look, other draws, another engine."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .. import engines, inference
from .._runs.folder import check_name
from ..errors import ModelError
from ..inference import AbstractEngine, Descent
from .refusals import are_several

_QUICK: dict[str, Any] = {
    "chains": 2,
    "warmup": 300,
    "draws": 500,
    "map_starts": 8,
    "steps": 1000,
    "starts": 2,
    "members": 5,
    "particles": 250,
}
"""Settings of a quick look, by name in an engine or in its descent."""


def change_run(
    study: Any, *, quick: bool = False, draws: int | None = None, engine: str | None = None
) -> Any:
    """Return a study with another engine or settings of it; `study.json` keeps the options.

    Args:
        study: the study.
        quick: whether to take few chains, draws and origins.
        draws: draws of each chain.
        engine: name of another engine, with its default settings.

    Returns:
        The study; the same one without options.

    Raises:
        ModelError: if there is no such engine, or it has no setting `draws`.
    """
    options = {"quick": quick, "draws": draws, "engine": engine}
    chosen = {name: value for name, value in options.items() if value}
    if not chosen:
        return study
    changed = study.engine if engine is None else _engine_named(engine)
    changes: dict[str, Any] = {"overrides": chosen}
    if quick:
        changed = _sooner(changed)
        several = are_several(study.origins)
        changes["origins"] = study.origins[-1:] if several else 1  # pyright: ignore
    if draws is not None:
        if "draws" not in _fields(changed):
            raise ModelError(f"{type(changed).__name__} has no setting draws: leave out --draws")
        changed = dataclasses.replace(changed, draws=draws)  # pyright: ignore
    return dataclasses.replace(study, engine=changed, **changes)


def folder_name(study: Any) -> str:
    """Return the name of the run folder: that of the study, with the options of the run.

    Args:
        study: the study, perhaps of `change_run`.

    Returns:
        Such as `lynx-hare-quick-svi`.
    """
    words = {"quick": "quick", "engine": study.overrides.get("engine", "").lower()}
    words["draws"] = f"{study.overrides.get('draws')}-draws"
    name = "-".join([study.name, *(words[option] for option in study.overrides)])
    check_name(name, "a run folder")
    return name


def _engine_named(name: str) -> AbstractEngine:
    """Return the engine of a name, whatever its case."""
    known: dict[str, Any] = {}
    for module in (inference, engines):
        for found in vars(module).values():
            if isinstance(found, type) and issubclass(found, AbstractEngine):
                known[found.__name__.lower()] = found
    del known["abstractengine"]
    if name.lower() not in known:
        names = ", ".join(cls.__name__ for cls in known.values())
        raise ModelError(f"there is no engine '{name}'; known are {names}")
    return known[name.lower()]()


def _sooner(settings: Any) -> Any:
    """Return settings of an engine, or of its descent, that end sooner."""
    changes: dict[str, Any] = {}
    for name, value in _fields(settings).items():
        if isinstance(value, Descent):
            changes[name] = _sooner(value)
        elif name in _QUICK and (value is None or value > _QUICK[name]):
            changes[name] = _QUICK[name]
    return dataclasses.replace(settings, **changes)


def _fields(settings: Any) -> Mapping[str, Any]:
    """Return the settings of an engine by name."""
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.init}
