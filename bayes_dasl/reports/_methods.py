"""The methods section of the report: data, equations, parameters, inference, forecast."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import numpy as np
import xarray as xr

from ..model import Model
from ..prediction.posterior import are_chains, of_particles
from ..scores.failures import usable_draws
from ._formulas import with_formulas
from ._text import count, listed
from .options import ReportOptions

LIBRARIES = {
    "bayes_dasl",
    "equinox",
    "diffrax",
    "lineax",
    "optimistix",
    "jax",
    "jaxlib",
    "numpyro",
    "numpy",
    "builtins",
}
"""Packages whose classes and functions are not shown as equations of the user."""


def methods(
    model: Model | None,
    tree: Any,
    post: xr.DataTree,
    fc: xr.DataTree,
    train: xr.Dataset,
    options: ReportOptions,
) -> dict[str, Any]:
    """Return the contents of the methods section.

    Args:
        model: the fitted model, or None if it is not known.
        tree: the result of `describe(model)`; not used without a model.
        post: the posterior.
        fc: the forecast.
        train: the fitted data.
        options: options of the report, with source and licence of the data.

    Returns:
        `said`: sentences by subject, such as "Data"; `equations`: pairs of name and description;
        `tree`: the description of the model as text.
    """
    said = {"Data": _data_sentences(train, options)}
    found: dict[str, Any] = {
        "said": said,
        "equations": [],
        "tree": "",
    }
    if model is not None:
        noises = model.noise.values() if isinstance(model.noise, Mapping) else (model.noise,)
        noise = listed(sorted({type(part).__name__ for part in noises}))
        said["Model"] = (
            f"{type(model.layer).__name__} with {count(tree.unknowns, 'unknown number')}; the data "
            f"scatter about it by {noise}. Below is all of it, with the prior of each number."
        )
        found |= {"equations": list(equations(model)), "tree": str(tree)}
    said |= {"Inference": _inference_words(post), "Forecast": _forecast_words(fc)}
    return found


def equations(model: Model) -> Iterator[tuple[str, str]]:
    """Describe each class and function in a model that the user wrote.

    Yields:
        The name, and the docstring as HTML, or the source code if there is no docstring.
    """
    seen: set[Any] = set()
    left: list[Any] = [model.layer, model.noise]
    while left:
        # 1. Unwrap partial and decorated functions.
        part = left.pop(0)
        while isinstance(part, functools.partial) or hasattr(part, "__wrapped__"):
            part = part.func if isinstance(part, functools.partial) else part.__wrapped__
        # 2. Containers hold further parts.
        if isinstance(part, Mapping):
            left += part.values()
            continue
        if isinstance(part, (list, tuple)):
            left += part
            continue
        # 3. Describe each function or class once, unless a library wrote it.
        thing = part if inspect.isroutine(part) else type(part)
        is_equation = callable(part) or isinstance(part, eqx.Module)
        if thing not in seen and is_equation and _is_users(thing):
            seen.add(thing)
            yield from ((base.__name__, _description(base)) for base in _with_bases(thing))
        # 4. Go on with the fields of modules and dataclasses.
        left += [getattr(part, name, None) for name in getattr(part, "__dataclass_fields__", ())]


def _is_users(thing: Any) -> bool:
    """Whether a class or function was written by the user, that is in no package of `LIBRARIES`."""
    return (getattr(thing, "__module__", None) or "").partition(".")[0] not in LIBRARIES


def _with_bases(thing: Any) -> list[Any]:
    """Return a class after the user's own base classes, or a function, as a list."""
    if not isinstance(thing, type):
        return [thing]
    # The bases come first, as one reads them.
    bases = [cls for cls in reversed(thing.__mro__) if _is_users(cls)]
    return [cls for cls in bases if issubclass(cls, eqx.Module)] or [thing]


def _description(thing: Any) -> str:
    """Return the docstring as HTML, or the source code if there is no docstring."""
    # `thing.__doc__` of a class may be inherited from a library class.
    words = thing.__dict__.get("__doc__") if isinstance(thing, type) else thing.__doc__
    # A dataclass without a docstring gets its signature as one.
    if words and not words.startswith(f"{thing.__name__}("):
        return with_formulas(inspect.cleandoc(words))
    try:
        return textwrap.dedent(inspect.getsource(thing)).strip()
    except (OSError, TypeError):
        return "written where no source is kept"


def _data_sentences(train: xr.Dataset, options: ReportOptions) -> str:
    """Return sentences on the number of fitted values, their source and their licence."""
    said = []
    values = {
        str(name): int(np.isfinite(v.values).sum())
        for name, v in train.data_vars.items()
        if v.dtype.kind in "fiu"
    }
    if values:
        counts = listed([f"{count(n, 'value')} of {name}" for name, n in values.items()])
        said.append(f"Fitted to {counts}.")
    source = options.source.removesuffix(".")
    said.append(f"Source: {source}." if source else "Their source was not told.")
    if options.licence:
        said.append(f"Licence: {options.licence.removesuffix('.')}.")
    return " ".join(said)


def _inference_words(post: xr.DataTree) -> str:
    """Return a sentence on the engine, and the number of chains, runs or draws."""
    attrs = post.attrs
    sizes = post["posterior"].sizes
    engine = str(attrs.get("engine", "an engine that was not told"))
    if not are_chains(post):
        kind = f": {attrs['draws_are']}" if attrs.get("draws_are") else ""
        return f"{count(sizes['draw'], 'draw')} by {engine}{kind}."
    if of_particles(post):
        return f"{count(sizes['chain'], 'run')} of {count(sizes['draw'], 'particle')} by {engine}."
    warm = f", after {attrs['warmup_draws']} of warm-up" if "warmup_draws" in attrs else ""
    short = " It was interrupted." if int(attrs.get("interrupted", 0)) else ""
    chains = f"{count(sizes['chain'], 'chain')} of {count(sizes['draw'], 'draw')}"
    return f"{chains} by {engine}{warm}.{short}"


def _forecast_words(fc: xr.DataTree) -> str:
    """Return words on the number of usable draws, and on whether the model was changed."""
    usable = usable_draws(fc)
    # An ensemble member may have several draws of the noise.
    kept = int(usable.sum()) * (fc["predictions"].sizes["draw"] // usable.shape[1])
    of = " of another model than the fitted one" if fc.attrs.get("what_if", 0) else ""
    return f"{count(kept, 'predictive draw')}{of}, observation noise included."
