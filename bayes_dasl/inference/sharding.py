"""Run one program for many independent items, on all cores of a CPU or on all accelerators."""

import functools
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


def shards_of(platform: str) -> int:
    """Return the number of shards on a platform: cores of a CPU, or the number of accelerators."""
    return cores() if platform == "cpu" else len(jax.devices(platform))


def most_even_shards(count: int) -> int:
    """Return the largest possible number of shards that all get the same number of items.

    Args:
        count: the number of items.
    """
    most = shards_of(computing_devices()[0].platform)
    return max(n for n in range(1, most + 1) if count % n == 0)


class Sharded:
    """Evaluate `one(item, *shared)` for `count` items, divided evenly among shards.

    On a CPU a shard is a thread that evaluates its items one after another. In a batch, each item
    would wait for the slowest solve at every step. XLA releases Python's lock, so that one device
    serves all threads. On accelerators a shard is a device.

    Shards run independently. The function must be traced (`traced_once`), since a solver itself
    cannot be used on several accelerators (diffrax#765).

    A call takes the items as a tree of arrays with a leading axis of items, and returns the results
    in the same way. Ctrl-C stops a call at once and discards its results.

    Args:
        one: the function of one item and of arguments that all items share.
        count: the number of items.
        batched: whether an accelerator evaluates its items as one batch, else one after another.
    """

    def __init__(self, one: Callable[..., Any], count: int, *, batched: bool = True):
        devices = computing_devices()
        self.platform: str = devices[0].platform
        self._one = one
        self._batched = batched and not self.on_cpu
        self.count = count
        self.each = -(-count // (cores() if self.on_cpu else len(devices)))
        self.shards = -(-count // self.each)
        self._devices = devices[: 1 if self.on_cpu else self.shards]
        self._threads = ThreadPoolExecutor(self.shards if self.on_cpu else 1)
        self._program: Any = None

    @property
    def on_cpu(self) -> bool:
        """Whether shards are threads on a CPU."""
        return self.platform == "cpu"

    def __str__(self) -> str:
        return f"{self.shards} × {self.platform}"

    def compile(self, items: Any, *shared: Any) -> None:
        """Compile the program once; later calls do nothing.

        Args:
            items: items of the right shapes; their values do not matter.
            *shared: arguments of the right shapes that all items share.
        """
        if self._program is not None:
            return
        # Random keys travel as their numbers, since NumPy cannot slice keys.
        kinds = jax.tree.map(_key_kind, items)
        length = self.each * len(self._devices)
        described = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((length, *a.shape[1:]), a.dtype, sharding=self._place),
            jax.tree.map(_without_keys, items),
        )

        def of_a_shard(items, *shared):
            items = jax.tree.map(_with_keys, items, kinds)
            if self._batched:
                return jax.vmap(lambda item: self._one(item, *shared))(items)
            return jax.lax.map(lambda item: self._one(item, *shared), items)

        program, held, _ = parted(self._over_devices(of_a_shard, len(shared)), described, *shared)
        self._program = functools.partial(compiled(program, held, described, *shared), held)

    def __call__(self, items: Any, *shared: Any) -> Any:
        self.compile(items, *shared)
        items = jax.tree.map(lambda a: np.asarray(_without_keys(a)), items)
        # Copies of the last item fill the last shard; their results are dropped.
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
        """How the leading axis of items is divided among the devices."""
        if len(self._devices) == 1:
            return SingleDeviceSharding(self._devices[0])
        return NamedSharding(Mesh(np.array(self._devices), ("items",)), PartitionSpec("items"))

    def _over_devices(self, function: Callable[..., Any], shared: int) -> Callable[..., Any]:
        """Return a function of all items that runs on every device with its share of the items.

        Args:
            function: the function of the items of one device.
            shared: number of arguments that all items share.
        """
        if len(self._devices) == 1:
            return function
        each = PartitionSpec("items")
        in_specs = (each, *[PartitionSpec()] * shared)
        mesh = Mesh(np.array(self._devices), ("items",))
        return jax.shard_map(
            function, mesh=mesh, in_specs=in_specs, out_specs=each, check_vma=False
        )


def _key_kind(leaf: Any) -> str:
    """Return the name of the generator of a random key, or "" for another array."""
    return str(jax.random.key_impl(leaf)) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else ""


def _without_keys(leaf: Any) -> Any:
    """Return random keys as arrays of integers, and other arrays unchanged."""
    return jax.random.key_data(leaf) if _key_kind(leaf) else leaf


def _with_keys(leaf: Any, kind: str) -> Any:
    """Return random keys from arrays of integers, and other arrays unchanged.

    Args:
        leaf: the array.
        kind: the name of the generator, or "" for an array that is no key.
    """
    return jax.random.wrap_key_data(leaf, impl=kind) if kind else leaf
