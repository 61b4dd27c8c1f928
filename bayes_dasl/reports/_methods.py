"""The report's account of how it was made: data, equations, unknown numbers, inference, forecast."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import numpy as np
import xarray as xr

from ..model import Model
from ._text import count, listed
from .options import ReportOptions


def methods(
    model: Model | None, tree: Any, post: xr.DataTree, fc: xr.DataTree, train: xr.Dataset, options: ReportOptions
) -> dict[str, Any]:
    """What the section says: sentences by what they are about, the equations, and the tree of what the model is."""
    said = {"Data": _data(train, options), "Inference": _inference(post), "Forecast": _forecast(fc)}
    if model is None:
        return {"said": said, "equations": [], "tree": ""}
    each = model.noise.values() if isinstance(model.noise, Mapping) else (model.noise,)
    noise = listed(sorted({type(part).__name__ for part in each}))
    said["Model"] = (
        f"{type(model.layer).__name__} with {count(tree.unknowns, 'unknown number')}; the data scatter about it by "
        f"{noise}. Below is all of it, with the prior of each number."
    )
    order = ("Data", "Model", "Inference", "Forecast")
    return {"said": {name: said[name] for name in order}, "equations": list(equations(model)), "tree": str(tree)}


def equations(model: Model) -> Iterator[tuple[str, str]]:
    """Name and account of each class of the user's in a model: its words, or its code where it has none."""
    seen: set[type] = set()
    left = [model.layer]
    while left:
        part = left.pop(0)
        if isinstance(part, eqx.Module):
            cls = type(part)
            if cls not in seen and not cls.__module__.startswith(("bayes_dasl.", "equinox", "diffrax")):
                seen.add(cls)
                yield cls.__name__, _account(cls)
            left += [getattr(part, name, None) for name in part.__dataclass_fields__]
        elif isinstance(part, dict):
            left += part.values()
        elif isinstance(part, (list, tuple)):
            left += part
        elif inspect.isfunction(part) and not part.__module__.startswith(("bayes_dasl", "jax")) and part not in seen:
            seen.add(part)  # pyright: ignore[reportArgumentType]
            yield part.__name__, _account(part)


def _account(thing: Any) -> str:
    words = thing.__dict__.get("__doc__") if isinstance(thing, type) else thing.__doc__
    if words and not words.startswith(f"{thing.__name__}("):  # which is what a dataclass without words says
        return inspect.cleandoc(words)
    try:
        return inspect.cleandoc(inspect.getsource(thing))
    except (OSError, TypeError):
        return "written where no source is kept"


def _data(train: xr.Dataset, options: ReportOptions) -> str:
    values = {
        str(name): int(np.isfinite(v.values).sum()) for name, v in train.data_vars.items() if v.dtype.kind in "fiu"
    }
    said = [f"Fitted to {listed([f'{count(n, "value")} of {name}' for name, n in values.items()])}."] if values else []
    told = options.told_of(train)
    said.append(f"Source: {told.source}." if told.source else "Their source was not told.")
    said += [f"Licence: {told.licence}."] if told.licence else []
    return " ".join(part.replace("..", ".") for part in said)


def _inference(post: xr.DataTree) -> str:
    attrs, sizes = post.attrs, post["posterior"].sizes
    kept = f"{count(sizes['chain'], 'chain')} of {count(sizes['draw'], 'draw')}"
    warm = f" after {attrs['warmup_draws']} of warm-up" if "warmup_draws" in attrs else ""
    what = f", which are {attrs['draws_are']}" if attrs.get("draws_are") else ""
    return (
        f"{attrs.get('engine', 'an engine that was not told')}: {kept}{warm}{what}. Random key {attrs.get('key', '?')}."
    )


def _forecast(fc: xr.DataTree) -> str:
    draws = count(fc["predictions"].sizes["chain"] * fc["predictions"].sizes["draw"], "draw")
    return f"{draws} of the posterior predictive distribution, observation noise included."
