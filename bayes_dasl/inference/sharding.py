"""One program for many independent items: on the cores of a CPU, or on all accelerators."""

import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from .._jax.compiling import compiled
from .._jax.devices import computing_devices, cores
from .._jax.trace import parted


def lap_times(one: Callable[..., Any], items: Any, count: int, *, laps: int) -> list[float]:
    """Seconds that each of several laps over all items takes, once compiled."""
    run = Sharded(one, count)
    run.compile(items)
    times = []
    for _ in range(1 + laps):
        began = time.perf_counter()
        run(items)
        times.append(time.perf_counter() - began)
    return times[1:]


def shards_of(platform: str) -> int:
    """Into how many parts work on devices of this kind is divided: the cores of a CPU, or the
    devices.
    """
    return cores() if platform == "cpu" else len(jax.devices(platform))


def most_even_shards(count: int) -> int:
    """The most shards, not more than there are cores or accelerators, that divide a number of
    items.
    """
    return max(
        n for n in range(1, shards_of(computing_devices()[0].platform) + 1) if count % n == 0
    )


class Sharded:
    """`one(item, *shared)` for `count` items, as few to a shard as possible; all shards run the
    same program.

    On a CPU a shard is a thread, and its items run one after another: in a batch each would wait
    for the hardest solve of all, at every step. XLA lets go of Python's lock, so that one device
    serves all threads. On accelerators a shard is a device, which takes its items as a batch (with
    `batched=False` one after another there too). The shards share nothing, so that each goes at its
    own pace. `one` must be closed (`traced_once`): a solver itself cannot be used on several
    accelerators (diffrax#765).

    A call takes and returns arrays with a leading axis of items, and is heard by Ctrl-C at once:
    what its threads still compute is dropped.
    """

    def __init__(self, one: Callable[..., Any], count: int, *, batched: bool = True):
        devices = computing_devices()
        self.platform: str = devices[0].platform
        self._one, self._batched, self.count = one, batched and not self.on_cpu, count
        self.each = -(-count // (cores() if self.on_cpu else len(devices)))
        self.shards = -(-count // self.each)
        self._devices = devices[: 1 if self.on_cpu else self.shards]
        self._threads = ThreadPoolExecutor(self.shards if self.on_cpu else 1)
        self._program: Any = None

    @property
    def on_cpu(self) -> bool:
        """Whether shards are threads."""
        return self.platform == "cpu"

    def __str__(self) -> str:
        return f"{self.shards} × {self.platform}"

    def compile(self, items: Any, *shared: Any) -> None:
        """Compile for arguments like these, once; of items only the shapes are looked at."""
        if self._program is not None:
            return
        kinds, length = jax.tree.map(_kind, items), self.each * len(self._devices)
        described = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((length, *a.shape[1:]), a.dtype, sharding=self._place),
            jax.tree.map(_plain, items),
        )

        def of_a_shard(items, *shared):
            items = jax.tree.map(_restored, items, kinds)
            if self._batched:
                return jax.vmap(lambda item: self._one(item, *shared))(items)
            return jax.lax.map(lambda item: self._one(item, *shared), items)

        program, held, _ = parted(self._over_devices(of_a_shard, len(shared)), described, *shared)
        self._program = functools.partial(compiled(program, held, described, *shared), held)

    def __call__(self, items: Any, *shared: Any) -> Any:
        self.compile(items, *shared)
        items = jax.tree.map(lambda a: np.asarray(_plain(a)), items)
        # Every shard gets as many items; the last one fills up, and is dropped again.
        filled = np.minimum(np.arange(self.shards * self.each), self.count - 1)
        parts = [
            jax.tree.map(lambda a, own=own: a[own], items)
            for own in np.split(filled, self.shards if self.on_cpu else 1)
        ]
        run = lambda part: jax.tree.map(np.asarray, self._program(part, *shared))  # noqa: E731
        found = [thread.result() for thread in [self._threads.submit(run, part) for part in parts]]
        return jax.tree.map(lambda *a: np.concatenate(a)[: self.count], *found)

    @property
    def _place(self) -> Any:
        if len(self._devices) == 1:
            return SingleDeviceSharding(self._devices[0])
        return NamedSharding(Mesh(np.array(self._devices), ("items",)), PartitionSpec("items"))

    def _over_devices(self, function: Callable[..., Any], shared: int) -> Callable[..., Any]:
        if len(self._devices) == 1:
            return function
        each, every = PartitionSpec("items"), PartitionSpec()
        in_specs, mesh = (each, *[every] * shared), Mesh(np.array(self._devices), ("items",))
        return jax.shard_map(
            function, mesh=mesh, in_specs=in_specs, out_specs=each, check_vma=False
        )


def _kind(leaf: Any) -> str:
    """Of which kind random keys are; empty for other arrays."""
    return str(jax.random.key_impl(leaf)) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else ""


def _plain(leaf: Any) -> Any:
    """An array that NumPy can slice: of random keys their numbers."""
    return jax.random.key_data(leaf) if _kind(leaf) else leaf


def _restored(leaf: Any, kind: str) -> Any:
    return jax.random.wrap_key_data(leaf, impl=kind) if kind else leaf
