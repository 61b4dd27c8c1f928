"""One program for many independent items, spread evenly over the devices."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .._jax.devices import computing_devices


def lap_times(one: Callable[..., Any], items: Any, count: int, *, laps: int) -> list[float]:
    """Seconds that each of several laps over all items takes, after one that compiles."""
    over = spread(one, count)
    run, items = jax.jit(over.function), jax.device_put(items, over.sharding)
    times = []
    for _ in range(1 + laps):
        began = time.perf_counter()
        jax.block_until_ready(run(items))
        times.append(time.perf_counter() - began)
    return times[1:]


class Spread(NamedTuple):
    """A function of arrays with a leading axis of items, the devices it runs on, and how items lie on them."""

    function: Callable[..., Any]
    devices: list[Any]
    sharding: NamedSharding


def spread(one: Callable[..., Any], count: int, *, shared: int = 0) -> Spread:
    """`one(item, *shared)` for `count` items, on as many devices as finish them soonest.

    The devices share one program without any communication: one compilation, and each goes at its own pace. On a
    CPU the items of a device run one after another: in a batch each would wait for the hardest solve of all, at
    every step. `one` must be closed (`traced_once`): a solver itself cannot be used inside `shard_map` (diffrax#765).
    """
    available = computing_devices()
    each = -(-count // len(available))
    devices = available[: -(-count // each)]
    even = len(devices) * each == count
    mesh = Mesh(np.array(devices), ("items",))

    def of_a_device(items, *arguments):
        if devices[0].platform == "cpu":
            return jax.lax.map(lambda item: one(item, *arguments), items)
        return jax.vmap(one, in_axes=(0, *[None] * shared))(items, *arguments)

    in_specs = (PartitionSpec("items"), *[PartitionSpec()] * shared)
    function = jax.shard_map(
        of_a_device, mesh=mesh, in_specs=in_specs, out_specs=PartitionSpec("items"), check_vma=False
    )

    def padded(items, *arguments):
        """Every device gets as many items; the last one fills up, and is dropped again."""
        filled = np.minimum(np.arange(len(devices) * each), count - 1)
        out = function(jax.tree.map(lambda a: a[filled], items), *arguments)
        return jax.tree.map(lambda a: a[:count], out)

    return Spread(
        function if even else padded, devices, NamedSharding(mesh, PartitionSpec("items") if even else PartitionSpec())
    )
