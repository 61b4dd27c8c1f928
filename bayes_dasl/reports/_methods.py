"""The methods section of the report: data, equations, parameters, inference, forecast."""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np
import pandas as pd
import xarray as xr

from ..model import Model
from ..prediction.posterior import are_chains, of_particles
from ..scores.failures import usable_draws
from ._formulas import with_formulas
from ._summary import Scored
from ._text import MISSING, count, fixed, listed
from .options import ReportOptions

if TYPE_CHECKING:
    from ..checking.description import Description

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
VERSIONS = ("bayes_dasl", "python", "jax", "numpyro", "diffrax", "blackjax")
_LONGEST = 80


def methods(
    model: Model | None,
    tree: Description | None,
    post: xr.DataTree,
    fc: xr.DataTree,
    train: xr.Dataset,
    options: ReportOptions,
    summary: pd.DataFrame,
    scored: Scored | None = None,
) -> dict[str, Any]:
    """Return the paragraphs of a methods section by subject, with equations and settings.

    Args:
        model: the model; None leaves out what only it knows.
        tree: its description.
        post: the posterior.
        fc: the forecast.
        train: the fitted data.
        options: source and licence of the data.
        summary: R-hat and effective sample sizes, as from `summaries`.
        scored: the scores of all forecasts, if there are test data.

    Returns:
        `said`, `equations`, `settings` as rows by part, and `tree` as text.
    """
    said = {"Data": _data_sentences(train, options, scored)}
    if model is not None and tree is not None:
        said["Model"] = _model_sentences(model, tree, post)
    said |= {
        "Inference": _inference_sentences(post, summary),
        "Forecast": _forecast_sentences(fc, scored),
        "Software": _software_sentence(post),
    }
    return {
        "said": {subject: words for subject, words in said.items() if words},
        "equations": [] if model is None else list(equations(model)),
        "settings": _settings(post, fc, tree),
        "tree": "" if tree is None else str(tree),
    }


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


def _data_sentences(train: xr.Dataset, options: ReportOptions, scored: Scored | None) -> str:
    """Say how many values were fitted and held out, their source and their licence."""
    values = {
        str(name): int(np.isfinite(v.values).sum())
        for name, v in train.data_vars.items()
        if v.dtype.kind in "fiu"
    }
    said = []
    if values:
        counts = listed([f"{count(n, 'value')} of {name}" for name, n in values.items()])
        said.append(f"The model was fitted to {counts}.")
    if scored is not None:
        held_out = count(int(scored.own.loc["all", "n"]), "further value")
        said.append(f"The forecast was evaluated on {held_out}, which the fit had not seen.")
    source = options.source.removesuffix(".")
    said.append(f"Source: {source}." if source else "The source of the data was not stated.")
    if options.licence:
        said.append(f"Licence: {options.licence.removesuffix('.')}.")
    return " ".join(said)


def _model_sentences(model: Model, tree: Description, post: xr.DataTree) -> str:
    """Return the kind of the model, its observation noise, and how many parameters it has."""
    noises = model.noise.values() if isinstance(model.noise, Mapping) else (model.noise,)
    noise = listed(sorted({_in_words(type(part).__name__) for part in noises}))
    sizes = [
        int(np.prod([v.sizes[dim] for dim in v.dims if dim not in ("chain", "draw")], dtype=int))
        for v in post["posterior"].dataset.data_vars.values()
        if v.attrs.get("group") == "network"
    ]
    weights = f", of which {sum(sizes)} belong to unknown functions" if sizes else ""
    return (
        f"The model is of type {type(model.layer).__name__} and has "
        f"{count(tree.unknowns, 'inferred parameter')}{weights}. The observation model is {noise}. "
        "The priors are listed with the model below."
    )


def _in_words(name: str) -> str:
    """Return the words of a class name: `LogNormalNoise` gives `log normal noise`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def engine_name(post: xr.DataTree) -> str:
    """Return the name of the engine without its settings."""
    return str(post.attrs.get("engine", "an engine that was not recorded")).partition("(")[0]


def _inference_sentences(post: xr.DataTree, summary: pd.DataFrame) -> str:
    """Say how the posterior was sampled, and how well the chains agree."""
    sizes = post["posterior"].sizes
    engine = engine_name(post)
    # 1. Draws that are no chains.
    if not are_chains(post):
        kind = f": {post.attrs['draws_are']}" if post.attrs.get("draws_are") else ""
        draws = count(sizes["draw"], "draw")
        return f"The posterior was approximated by {engine}, with {draws}{kind}."
    if of_particles(post):
        runs = f"{count(sizes['chain'], 'run')} of {count(sizes['draw'], 'particle')}"
        return f"The posterior was sampled by {engine}, in {runs}."
    # 2. Chains.
    chains = f"{count(sizes['chain'], 'chain')} of {count(sizes['draw'], 'draw')}"
    said = [f"The posterior was sampled by {engine}, in {chains} each{_warmup(post)}."]
    if int(post.attrs.get("interrupted", 0)):
        said.append("The run was interrupted.")
    worst, lowest = fixed(summary["r_hat"].max(), 3), fixed(summary["ess_bulk"].min(), 0)
    if MISSING not in (worst, lowest):
        said.append(
            "Convergence was judged by rank-normalised R-hat and bulk effective sample size "
            f"(Vehtari et al., 2021): over the science parameters, the largest R-hat is {worst} "
            f"and the lowest effective sample size {lowest}."
        )
    stats = post["sample_stats"].dataset if "sample_stats" in post.children else {}
    if "diverging" in stats:
        diverged = stats["diverging"]
        said.append(f"Of {diverged.size} transitions, {int(diverged.sum())} diverged.")
    return " ".join(said)


def _warmup(post: xr.DataTree) -> str:
    """Return a phrase with the number of warm-up draws; empty if the number is unknown."""
    draws = post.attrs.get("warmup_draws")
    return f", after {draws} warm-up draws" if draws is not None else ""


def _forecast_sentences(fc: xr.DataTree, scored: Scored | None) -> str:
    """Say what the forecast consists of, and how it was scored."""
    usable = usable_draws(fc)
    # An ensemble member may have several draws of the noise.
    kept = int(usable.sum()) * (fc["predictions"].sizes["draw"] // usable.shape[1])
    said = [
        f"The forecast consists of {count(kept, 'draw')} of the posterior predictive distribution, "
        "with observation noise."
    ]
    if fc.attrs.get("what_if", 0):
        said.append("It is of another model than the fitted one.")
    if scored is not None:
        others = [name for name in scored.tables if name != scored.name]
        said.append(
            "It was scored by the continuous ranked probability score (CRPS; Gneiting and Raftery, "
            f"2007) and compared with {listed(others)}."
        )
    return " ".join(said)


def _software_sentence(post: xr.DataTree) -> str:
    """Return the versions of the software, if they were recorded."""
    attrs = post.attrs
    used = [f"{n} {attrs[f'version_{n}']}" for n in VERSIONS if f"version_{n}" in attrs]
    return f"Computations used {listed(used)}." if used else ""


def _settings(
    post: xr.DataTree, fc: xr.DataTree, tree: Description | None
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the settings of the engine, the random seeds and the settings of each model part."""
    seeds = [
        (name, str(of.attrs.get("key", MISSING))) for name, of in (("fit", post), ("forecast", fc))
    ]
    found = [
        (engine_name(post), list(_arguments(str(post.attrs.get("engine", ""))))),
        ("random seed", seeds),
    ]
    parts = [] if tree is None else [tree.root]
    while parts:
        part = parts.pop(0)
        rows = [(name, value) for name, value in part.settings.items() if _is_short(value)]
        found.append((part.title, [(name.replace("_", " "), value) for name, value in rows]))
        parts += part.children
    return [(title, rows) for title, rows in found if rows]


def _is_short(value: str) -> bool:
    return len(value) <= _LONGEST


def _arguments(call: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and value of each argument in the text of a constructor call, inner calls too."""
    _, _, inner = call.partition("(")
    # A comma in inner brackets separates no arguments.
    depth, fields = 0, [""]
    for letter in inner.removesuffix(")"):
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and not depth:
            fields.append("")
        else:
            fields[-1] += letter
    for field in fields:
        name, is_named, value = field.strip().partition("=")
        if not is_named:
            continue
        words = f"{prefix}{name.replace('_', ' ')}"
        if re.fullmatch(r"\w+\(\w+=.*\)", value):
            yield from _arguments(value, f"{words}: ")
        else:
            text = {"None": "not set", "True": "yes", "False": "no"}.get(value, value.strip("'"))
            yield words, textwrap.shorten(text, _LONGEST, placeholder=" …")
