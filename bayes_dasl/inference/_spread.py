"""One program for many independent items, spread evenly over the devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .._devices import computing_devices


class Spread(NamedTuple):
    """A function of arrays with a leading axis of items, the devices it runs on, and how items lie on them."""

    function: Callable[..., Any]
    devices: list[Any]
    sharding: NamedSharding


def spread(one: Callable[..., Any], count: int, *, shared: int = 0) -> Spread:
    """`one(item, *shared)` for `count` items, on as many devices as divide their number.

    The devices share one program without any communication: one compilation, and each goes at its own pace. On a
    CPU the items of a device run one after another: in a batch each would wait for the hardest solve of all, at
    every step. `one` must be closed (`traced_once`): a solver itself cannot be used inside `shard_map` (diffrax#765).
    """
    available = computing_devices()
    devices = available[: max(n for n in range(1, len(available) + 1) if count % n == 0)]
    sharding = NamedSharding(Mesh(np.array(devices), ("items",)), PartitionSpec("items"))

    def of_a_device(items, *arguments):
        if devices[0].platform == "cpu":
            return jax.lax.map(lambda item: one(item, *arguments), items)
        return jax.vmap(one, in_axes=(0, *[None] * shared))(items, *arguments)

    in_specs = (PartitionSpec("items"), *[PartitionSpec()] * shared)
    function = jax.shard_map(
        of_a_device, mesh=sharding.mesh, in_specs=in_specs, out_specs=PartitionSpec("items"), check_vma=False
    )
    return Spread(function, devices, sharding)
