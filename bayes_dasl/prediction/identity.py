"""Checks that a posterior belongs to a model, by its random leaves and its log density program."""

import hashlib
import importlib.metadata
import platform
import warnings
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import xarray as xr

from ..data.datasets import observations
from ..errors import MismatchError
from ..layers.layer import AbstractPopulation
from ..model import Model, posterior_fingerprint
from ..random import paths
from .new_members import differ
from .posterior import check_belongs, fitted_data, fitted_observables

_LIBRARIES = ("jax", "numpyro", "diffrax", "blackjax")
_SOURCE = Path(__file__).parents[1]
OWN = "that of the fit"
_REMEDY = (
    "fit it anew, or ask what_if=True of bd.forecast to forecast with it all the same; after a "
    "correction by "
    "bd.updating.check_solver the model is bd.updating.tightened(model)"
)


def versions() -> dict[str, str]:
    """Return the versions of the packages that determine draws.

    The version of this package ends with a hash of its source, as in 0.1.0+1a2b3c4d. The source of
    an editable install, or of a wheel between releases, may change under the same version.

    Returns:
        Versions by package.
    """
    own = f"{importlib.metadata.version('bayes_dasl')}+{source_hash(_SOURCE)}"
    return {"bayes_dasl": own} | {name: importlib.metadata.version(name) for name in _LIBRARIES}


@cache
def source_hash(folder: Path) -> str:
    """Return eight hexadecimal digits of the SHA-256 of all Python files in a folder.

    The process caches the hash, since an edit on disk does not change modules already imported.

    Returns:
        The digits.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        # Path and length come first, so that text moved between files changes the hash.
        text = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:8]


def made_with() -> dict[str, str]:
    """Return attributes for everything beside the model that determines its compiled program.

    Returns:
        Platform, backend and versions, by attribute.
    """
    system = {"platform": platform.platform(), "backend": jax.default_backend()}
    return system | {f"version_{name}": version for name, version in versions().items()}


def check_same_posterior(model: Model, post: xr.DataTree) -> bool:
    """Refuse a posterior of a model with other equations, priors, noise or solver settings.

    For a posterior from other versions of the libraries, or from another system, only random leaves
    can be compared.

    Returns:
        Whether everything was compared and agrees; False if only random leaves could be compared.

    Raises:
        MismatchError: if the posterior belongs to another model.
    """
    check_belongs(model, post)
    held = post.attrs.get("posterior_sha256")
    if not held:
        return False
    data = fitted_data(post)
    try:
        observed = {
            name: jnp.asarray(observations(data, name, dims=model.dims(name)))
            for name in model.observables
        }
        inputs, observed, _ = model.reader.at_own_rows(model.inputs(data), observed)
        same = held == posterior_fingerprint(model, inputs, observed)
    except Exception as error:
        # The equations of another model may raise anything.
        raise MismatchError(
            "this posterior belongs to another model: this one cannot be evaluated on the data of "
            "the fit "
            f"({type(error).__name__}: {error}); {_REMEDY}"
        ) from error
    # A difference tells nothing between other versions or systems, which trace other programs.
    if not same and all(post.attrs.get(name) == value for name, value in made_with().items()):
        raise MismatchError(
            "this posterior belongs to another model with the same random leaves: an equation, a "
            "prior, the noise, a "
            f"known number or a solver setting differs; {_REMEDY}"
        )
    return same


def _has_other_groups(model: Model, post: xr.DataTree) -> bool:
    """Return whether a population has other groups than the fit, even without random effects."""
    if not isinstance(layer := model.layer, AbstractPopulation):
        return False
    seen = fitted_observables(post)
    if layer.dim not in seen.coords:
        return False
    return {*layer.members} != {*seen[layer.dim].values.tolist()}


def model_of(model: Model, post: xr.DataTree, *, what_if: bool) -> dict[str, str | int]:
    """Return attributes of a forecast that state whether its model is the fitted one.

    Args:
        model: the model of the forecast.
        post: the posterior.
        what_if: whether a model with the same random leaves may differ from the fitted one.

    Returns:
        `model` in words, and `what_if` as 0 or 1.

    Raises:
        MismatchError: for a posterior of another model; with `what_if`, only if random leaves
            differ.
    """
    check_belongs(model, post)
    if differ(paths(model), post["posterior"].to_dataset()) or _has_other_groups(model, post):
        return {
            "model": "that of the fit for other members, as far as its random leaves tell",
            "what_if": int(what_if),
        }
    try:
        same = check_same_posterior(model, post)
    except MismatchError:
        if not what_if:
            raise
        same = False
    if same:
        return {"model": OWN, "what_if": 0}
    # Another model, or a posterior of other versions, whose program cannot be compared.
    if what_if:
        return {"model": "another than that of the fit", "what_if": 1}
    said = "that of the fit as far as its random leaves tell"
    if post.attrs.get("posterior_sha256"):
        warnings.warn(
            "this posterior was fitted by other versions of the libraries or on another system: "
            "that its equations, "
            "priors, noise and known numbers are those of the model cannot be told, only that its "
            "random leaves are",
            stacklevel=3,
        )
    return {"model": said, "what_if": 0}
