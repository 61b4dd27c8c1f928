"""The way of a posterior problem through one run of NUTS, followed while it runs.

`walk(root)` runs this file in a process of its own, with the package that stands in `root`. There a
small fit (a decay with a network for what it misses, seen at eight times, two chains, 50 draws of
warm-up and 10 more, no program from a cache, one CPU device) is followed by `sys.monitoring`, in
all its threads.

A *stop* is a call, by one function of the package from another, with the problem, or a method of
it, among its arguments; the same call
made again, as in a loop, is none, since how often loops run depends on the clock. Counted so,
`self` is excluded: the problem's own methods are no stops. Then once more with every call that
carries it in any way: as an argument, as `self`, or in an attribute of either. Within a thread, a
stop in another file than the one before is a *move*, and a *return* if the problem has been in that
file before.
"""

import json
import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

JOB = Path(__file__)
TOOL = sys.monitoring.PROFILER_ID

type Stop = tuple[str, str, str]
"""The file and the name of a function, and which called it."""


def walk(root: Path) -> dict[str, str]:
    """The counts of one run with the package in `root`."""
    environment = {
        name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"
    }
    environment |= {"PYTHONPATH": str(root), "BAYES_DASL_CACHE": "off", "JAX_NUM_CPU_DEVICES": "1"}
    environment["XLA_FLAGS"] = (
        "--xla_backend_optimization_level=0"  # nobody waits for the program, but for its making
    )
    command = [sys.executable, "-W", "ignore", str(JOB), str(root)]
    done = subprocess.run(
        command, cwd=root, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


class Walk:
    """Stops of a problem, in order, for each thread."""

    def __init__(self, package: Path, posed: type):
        self._package, self._posed = f"{package}{os.sep}", posed
        self._calls: dict[threading.Thread, dict[Stop, bool]] = {}

    def __enter__(self) -> "Walk":
        sys.monitoring.use_tool_id(TOOL, "walk")
        sys.monitoring.register_callback(TOOL, sys.monitoring.events.PY_START, self._begun)
        sys.monitoring.set_events(TOOL, sys.monitoring.events.PY_START)
        return self

    def __exit__(self, *_) -> None:
        sys.monitoring.free_tool_id(TOOL)

    def _begun(self, code, _) -> object:
        """A function begins; those of other packages are not heard of again."""
        if not code.co_filename.startswith(self._package):
            return sys.monitoring.DISABLE
        frame = sys._getframe(1)
        given = [
            frame.f_locals.get(name)
            for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        ]
        own = code.co_varnames[:1] == ("self",)
        handed = any(self._is_problem(value) for value in given[own:])
        if handed or any(self._is_problem(value) or self._holds(value) for value in given):
            stop = (
                code.co_filename.removeprefix(self._package),
                code.co_qualname,
                self._caller(frame),
            )
            self._calls.setdefault(threading.current_thread(), {}).setdefault(stop, handed)
        return None

    def _is_problem(self, value: object) -> bool:
        return isinstance(value, self._posed) or isinstance(
            getattr(value, "__self__", None), self._posed
        )

    def _holds(self, value: object) -> bool:
        inside = getattr(value, "__dict__", {})
        return not isinstance(value, type) and any(
            isinstance(part, self._posed) for part in inside.values()
        )

    def _caller(self, frame) -> str:
        """The nearest function of the package above a frame."""
        while frame := frame.f_back:
            if frame.f_code.co_filename.startswith(self._package):
                return f"{frame.f_code.co_filename} {frame.f_code.co_qualname}"
        return ""

    def counts(self) -> dict[str, str]:
        threads = [
            [(file, handed) for (file, *_), handed in calls.items()]
            for calls in self._calls.values()
        ]
        handed = [[file for file, handed in stops if handed] for stops in threads]
        every = [[file for file, _ in stops] for stops in threads]
        return _described("handed on as an argument", handed) | _described(
            "carried in any way", every
        )


def _described(how: str, threads: list[list[str]]) -> dict[str, str]:
    moves = returns = 0
    for files in threads:
        seen = set(files[:1])
        for before, after in pairwise(files):
            moves += before != after
            returns += before != after and after in seen
            seen.add(after)
    return {
        f"problem through NUTS, {how}: stops": str(sum(map(len, threads))),
        f"… {how}: files": str(len({file for files in threads for file in files})),
        f"… {how}: moves from file to file, of which returns": f"{moves}, {returns}",
    }


def main(root: Path) -> None:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro.distributions as dist
    import xarray as xr

    import bayes_dasl as bd
    from bayes_dasl.inference import pose

    assert Path(bd.__file__).is_relative_to(root), bd.__file__

    class Decay(bd.Module):
        rate: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": -self.rate * y["y"]}

    times = np.linspace(0.5, 4.0, 8)
    data = xr.Dataset(
        {"y": ("time", 2 * np.exp(-0.7 * times) + 0.05 * np.cos(9 * times))}, {"time": times}
    )
    unknown = bd.Network(
        eqx.nn.MLP(1, 1, 2, 1, jnp.tanh, key=jax.random.key(0)),
        {"y": (1.0, 0.5)},
        ("y",),
        scale=0.1,
    )
    field = bd.Residual(Decay(bd.between(0.1, 2.0)), unknown)
    layer = bd.ODE(field, {"y": dist.LogNormal(0.7, 0.3)}, start=0.0)
    model = bd.Model(layer, bd.NormalNoise(dist.LogNormal(-3.0, 1.0)))
    with Walk(root / "bayes_dasl", type(pose(model, data))) as seen:
        bd.fit(
            model,
            data,
            bd.NUTS(chains=2, warmup=50, draws=10, map_starts=2, max_tree_depth=3),
            progress=False,
            key=0,
        )
    print(json.dumps(seen.counts()))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
