"""The report's account of how it was made: data, equations, unknown numbers, inference,
forecast.
"""

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
"""What comes from these is no equation of the user's."""


def methods(
    model: Model | None,
    tree: Any,
    post: xr.DataTree,
    fc: xr.DataTree,
    train: xr.Dataset,
    options: ReportOptions,
) -> dict[str, Any]:
    """What the section says: sentences by what they are about, the equations, and the tree of what
    the model is.
    """
    said = {"Data": _data(train, options)}
    if model is not None:
        each = model.noise.values() if isinstance(model.noise, Mapping) else (model.noise,)
        noise = listed(sorted({type(part).__name__ for part in each}))
        said["Model"] = (
            f"{type(model.layer).__name__} with {count(tree.unknowns, 'unknown number')}; the data "
            "scatter about it by "
            f"{noise}. Below is all of it, with the prior of each number."
        )
    said |= {"Inference": _inference(post), "Forecast": _forecast(fc)}
    account = [] if model is None else list(equations(model))
    return {"said": said, "equations": account, "tree": "" if model is None else str(tree)}


def equations(model: Model) -> Iterator[tuple[str, str]]:
    """Name and account of each class and function of the user's in a model: its words as HTML, or
    else its code.
    """
    seen: set[Any] = set()
    left: list[Any] = [model.layer, model.noise]
    while left:
        part = left.pop(0)
        while isinstance(part, functools.partial) or hasattr(part, "__wrapped__"):
            part = part.func if isinstance(part, functools.partial) else part.__wrapped__
        if isinstance(part, Mapping):
            left += part.values()
        elif isinstance(part, (list, tuple)):
            left += part
        else:
            thing = part if inspect.isroutine(part) else type(part)
            if (
                thing not in seen
                and _is_users(thing)
                and (callable(part) or isinstance(part, eqx.Module))
            ):
                seen.add(thing)
                yield from ((each.__name__, _account(each)) for each in _with_bases(thing))
            left += [
                getattr(part, name, None) for name in getattr(part, "__dataclass_fields__", ())
            ]


def _is_users(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").partition(".")[0] not in LIBRARIES


def _with_bases(thing: Any) -> list[Any]:
    """A class after those of the user's that it stands on, since its words may lean on theirs."""
    if not isinstance(thing, type):
        return [thing]
    return [
        cls for cls in reversed(thing.__mro__) if _is_users(cls) and issubclass(cls, eqx.Module)
    ] or [thing]


def _account(thing: Any) -> str:
    words = thing.__dict__.get("__doc__") if isinstance(thing, type) else thing.__doc__
    if words and not words.startswith(
        f"{thing.__name__}("
    ):  # which is what a dataclass without words says
        return with_formulas(inspect.cleandoc(words))
    try:
        return textwrap.dedent(inspect.getsource(thing)).strip()
    except (OSError, TypeError):
        return "written where no source is kept"


def _data(train: xr.Dataset, options: ReportOptions) -> str:
    values = {
        str(name): int(np.isfinite(v.values).sum())
        for name, v in train.data_vars.items()
        if v.dtype.kind in "fiu"
    }
    said = (
        [f"Fitted to {listed([f'{count(n, "value")} of {name}' for name, n in values.items()])}."]
        if values
        else []
    )
    said.append(
        f"Source: {options.source.removesuffix('.')}."
        if options.source
        else "Their source was not told."
    )
    said += [f"Licence: {options.licence.removesuffix('.')}."] if options.licence else []
    return " ".join(said)


def _inference(post: xr.DataTree) -> str:
    attrs, sizes = post.attrs, post["posterior"].sizes
    engine = str(attrs.get("engine", "an engine that was not told"))
    draws = count(sizes["draw"], "draw")
    if not are_chains(post):
        return f"{draws} by {engine}" + (
            f": {attrs['draws_are']}." if attrs.get("draws_are") else "."
        )
    warm = f", after {attrs['warmup_draws']} of warm-up" if "warmup_draws" in attrs else ""
    short = " It was interrupted." if int(attrs.get("interrupted", 0)) else ""
    if of_particles(post):
        return f"{count(sizes['chain'], 'run')} of {count(sizes['draw'], 'particle')} by {engine}."
    return f"{count(sizes['chain'], 'chain')} of {draws} by {engine}{warm}.{short}"


def _forecast(fc: xr.DataTree) -> str:
    usable = usable_draws(fc)
    kept = int(usable.sum()) * (fc["predictions"].sizes["draw"] // usable.shape[1])
    of = " of another model than the fitted one" if fc.attrs.get("what_if", 0) else ""
    return f"{count(kept, 'predictive draw')}{of}, observation noise included."
