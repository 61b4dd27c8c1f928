"""Go on with a fit that was killed."""

import ast
import json
import os

import jax
import jax.numpy as jnp
import xarray as xr
from jaxtyping import Array

from .._errors import ReadError
from .._runs.journal import read_identity
from ..model import Model
from . import fitting as _fit
from .descent.dropout import MCDropout
from .descent.ensemble import DeepEnsemble
from .descent.joint import Joint
from .descent.laplace import Laplace
from .descent.swag import SWAG
from .many_chain.sampler import ManyChain
from .nuts.sampler import NUTS
from .smc.sampler import SMC
from .svi.variational import SVI

_ENGINES = {
    engine.__name__: engine for engine in (NUTS, ManyChain, SVI, SMC, Joint, DeepEnsemble, MCDropout, SWAG, Laplace)
}


def resume(
    model: Model,
    data: xr.Dataset,
    checkpoint: str | os.PathLike,
    *,
    progress: bool | None = None,
    device: str = "auto",
) -> xr.DataTree:
    """Go on with the fit whose checkpoint lies in a folder; engine and key are those that it was begun with.

    The result is that of `fit` without the interruption, to the last bit on the same machine.
    Raises: ReadError if there is no checkpoint; MismatchError if it belongs to another model or other data;
    DataError, ModelError as `fit`.
    """
    identity = read_identity(checkpoint)
    engine, key = _engine(str(identity.get("engine"))), _key(identity.get("key"))
    return _fit.fit(model, data, engine, progress=progress, checkpoint=checkpoint, device=device, key=key)


def _engine(text: str) -> _fit.Engine:
    """The engine from what it prints of itself, such as `NUTS(chains=4)`.

    Raises: ReadError if it is none of ours.
    """
    if " near draws " in text:
        raise ReadError("the checkpoint was made by bd.update: call it again, with the same arguments and checkpoint")
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        settings = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        return _ENGINES[call.func.id](**settings)
    except (SyntaxError, ValueError, AssertionError, KeyError, TypeError) as error:
        known = ", ".join(_ENGINES)
        raise ReadError(
            f"the checkpoint was made by {text}, which is none of the engines {known}: call bd.fit with the same "
            "engine, key and checkpoint instead"
        ) from error


def _key(held: int | str | None) -> int | Array:
    """The key from what a checkpoint says of it.

    Raises: ReadError if it is none, or one of another kind than JAX's own: its numbers do not say which.
    """
    if isinstance(held, int):
        return held
    try:
        return jax.random.wrap_key_data(jnp.asarray(json.loads(str(held)), jnp.uint32))
    except (ValueError, TypeError, OverflowError) as error:
        raise ReadError(
            f"the checkpoint was made with {held}, which is no key of jax.random.key(…): call bd.fit with the same "
            "engine, key and checkpoint instead"
        ) from error
