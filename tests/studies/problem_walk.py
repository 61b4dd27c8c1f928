"""The way of a posterior problem through one run of NUTS, followed while it runs.

`walk(root)` runs this file in a process of its own, with the package that stands in `root`. There a small fit (a decay
with a network for what it misses, seen at eight times, two chains, 50 draws of warm-up and 10 more, no program from a
cache, one CPU device) is followed by `sys.monitoring`, in all its threads. Every call of a function of the package with
the problem among its arguments is a *stop*; the problem's own methods, whose `self` it is, are counted apart, and so
are calls whose `self` or arguments hold the problem in an attribute. Within a thread, a stop in another file than the
one before is a *move*, and a *return* if the problem has been in that file before.
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


def walk(root: Path) -> dict[str, str]:
    """The counts of one run with the package in `root`."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(root), "BAYES_DASL_CACHE": "off", "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-W", "ignore", str(JOB), str(root)]
    done = subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


class Walk:
    """Stops of a problem, in order, for each thread."""

    def __init__(self, package: Path, posed: type):
        self._package, self._posed = f"{package}{os.sep}", posed
        self.stops: dict[threading.Thread, list[tuple[str, str]]] = {}
        self.own = self.held = 0

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
        values = sys._getframe(1).f_locals
        given = {name: values.get(name) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]}
        posed = [name for name, value in given.items() if isinstance(value, self._posed)]
        if posed == ["self"]:
            self.own += 1
        elif posed:
            file = code.co_filename.removeprefix(self._package)
            self.stops.setdefault(threading.current_thread(), []).append((file, code.co_qualname))
        elif any(self._holds(value) for value in given.values()):
            self.held += 1
        return None

    def _holds(self, value: object) -> bool:
        inside = getattr(value, "__dict__", {})
        return not isinstance(value, type) and any(isinstance(part, self._posed) for part in inside.values())

    def counts(self) -> dict[str, str]:
        every = [stop for stops in self.stops.values() for stop in stops]
        moves = returns = 0
        for stops in self.stops.values():
            files = [file for file, _ in stops]
            seen = set(files[:1])
            for before, after in pairwise(files):
                moves += before != after
                returns += before != after and after in seen
                seen.add(after)
        return {
            "problem through NUTS: stops, `self` excluded": str(len(every)),
            "… of which calls of a function not seen before": str(len(set(every))),
            "… files entered": str(len({file for file, _ in every})),
            "… moves from file to file": str(moves),
            "… of which returns": str(returns),
            "… calls of the problem's own methods": str(self.own),
            "… calls given an object that holds it": str(self.held),
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
    data = xr.Dataset({"y": ("time", 2 * np.exp(-0.7 * times) + 0.05 * np.cos(9 * times))}, {"time": times})
    unknown = bd.Network(eqx.nn.MLP(1, 1, 2, 1, jnp.tanh, key=jax.random.key(0)), {"y": (1.0, 0.5)}, ("y",), scale=0.1)
    field = bd.Residual(Decay(bd.between(0.1, 2.0)), unknown)
    layer = bd.ODE(field, {"y": dist.LogNormal(0.7, 0.3)}, start=0.0)
    model = bd.Model(layer, bd.NormalNoise(dist.LogNormal(-3.0, 1.0)))
    with Walk(root / "bayes_dasl", type(pose(model, data))) as seen:
        bd.fit(model, data, bd.NUTS(chains=2, warmup=50, draws=10, climbs=2, max_tree_depth=3), progress=False, key=0)
    print(json.dumps(seen.counts()))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
