"""Small fits, and a study, whose process meets a fault at a chosen moment: what `faults` kills.

Run as a program it fits once: `python -m tests.studies.victims '{"engine": "SMC", "folder": …}'`.
"""

import dataclasses
import errno
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl._runs import files
from bayes_dasl.errors import BayesDaslError
from bayes_dasl.inference import AbstractEngine, Journal
from bayes_dasl.inference.nuts import nuts as sampler

KEY = 5
STUDY = "study"
_UNDER_WAY = 0.05  # seconds after a step was begun


def in_small_steps() -> None:
    """Draw in chunks of 25, so that there are many moments."""
    sampler._LONGEST_PAUSE = 0.0


class Line(bd.Module):
    level: bd.Scalar
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + self.slope * t}


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


def _noise() -> bd.NormalNoise:
    return bd.NormalNoise(scale=dist.LogNormal(-1.0, 0.5))


def line(sd: float = 2.0) -> bd.Model:
    """A closed form, so that compilation is short."""
    return bd.Model(bd.Algebraic(Line(dist.Normal(0.0, sd), dist.Normal(0.0, 2.0))), _noise())


def decay() -> bd.Model:
    """The one that solves an equation."""
    return bd.Model(bd.ODE(Decay(bd.between(0.05, 1.0)), {"y": dist.Normal(2.0, 1.0)}), _noise())


def network() -> bd.Model:
    """The one with units that dropout can leave out."""
    return bd.Model(
        bd.Algebraic(bd.Network.mlp({"t": (4.0, 3.0)}, ("y",), width=4, depth=1)), _noise()
    )


def seen() -> xr.Dataset:
    times = np.arange(12.0)
    values = 2.0 * np.exp(-0.2 * times) + 0.2 * np.random.default_rng(0).normal(size=12)
    return xr.Dataset({"y": ("time", values)}, {"time": times})


_STEPS = bd.Descent(steps=400)
_ALL_STEPS = bd.Descent(steps=400, patience=None)

FITS: dict[str, tuple[bd.Model, AbstractEngine]] = {
    "NUTS": (line(), bd.NUTS(chains=2, warmup=100, draws=150)),
    "NUTS, ODE": (decay(), bd.NUTS(chains=2, warmup=50, draws=75)),
    "ManyChain": (
        line(),
        bd.engines.ManyChain("chees", chains=16, warmup=48, draws=64, superchains=4),
    ),
    "SMC": (line(), bd.engines.SMC(particles=100, runs=2)),
    "SVI": (line(), bd.engines.SVI(steps=600, draws=50)),
    "DeepEnsemble": (line(), bd.DeepEnsemble(members=4, descent=_STEPS)),
    "Laplace": (line(), bd.engines.Laplace(draws=100, starts=2, descent=_STEPS)),
    "SWAG": (line(), bd.engines.SWAG(members=2, draws=50, collected=4, descent=_ALL_STEPS)),
    "MCDropout": (network(), bd.engines.MCDropout(draws=50, starts=2, descent=_ALL_STEPS)),
    "Joint": (line(), bd.Joint(starts=2, descent=_STEPS)),
}


def study(sd: float = 2.0) -> bd.Study:
    """Two models, by NUTS."""
    competitor = bd.Model(bd.Algebraic(Line(dist.Normal(0.0, 2.0), 0.0)), _noise())
    engine = bd.NUTS(chains=2, warmup=100, draws=150)
    given = {
        "model": line(sd),
        "label": "line",
        "competitors": {"level": competitor},
        "data": seen(),
        "split": 9.0,
    }
    return bd.Study(name="line", engine=engine, mix=False, **given)


@dataclasses.dataclass(frozen=True)
class Fault:
    """What befalls a process, and when.

    Args:
        strikes: the name of a signal, or "twice" for Ctrl-C and again; "full" for a disk without
            room; "waits" for none, but a process that stands still until there is a file `go`.
        step: the number of the step that is under way.
        file: or, the beginning of the name of a file that is half-written.
        room: or, how large a file may become, in bytes.
    """

    strikes: str = ""
    step: int = 0
    file: str = ""
    room: int = 0


def _strike(fault: Fault, folder: Path) -> None:
    if fault.strikes == "waits":
        (folder / "waits").touch()
        while not (folder / "go").exists():
            time.sleep(0.02)
    elif fault.strikes == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    elif fault.strikes == "twice":
        _later(0.3, os.kill, os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    else:
        os.kill(os.getpid(), signal.Signals[fault.strikes])


def _later(seconds: float, do: Callable[..., object], *arguments: object) -> None:
    timer = threading.Timer(seconds, do, arguments)
    timer.daemon = True  # a process that has ended is not waited for
    timer.start()


def _struck(fault: Fault, folder: Path, work: Callable[[], Any]) -> Any:
    """Do the work of a step over and over, until the fault comes in the midst of it."""
    _later(_UNDER_WAY, _strike, fault, folder)
    end = time.monotonic() + 10.0
    while True:
        done = work()
        if time.monotonic() > end:
            return done


def arm(fault: Fault, folder: Path) -> None:
    """Let a fault befall this process; `folder` is where it may leave word."""
    step, reach, count = Journal.step, files._reach_the_disk, 0

    def with_a_fault(self: Journal, name: str, work: Callable[[], Any]) -> Any:
        nonlocal count
        count += 1
        if count != fault.step:
            return step(self, name, work)
        if fault.strikes == "waits":
            _strike(fault, folder)
            return step(self, name, work)
        return step(self, name, lambda: _struck(fault, folder, work))

    def torn(path: Path) -> None:
        if path.name.startswith(f".{fault.file}"):
            os.truncate(path, path.stat().st_size // 2)
            _strike(fault, folder)
        reach(path)

    Journal.step = with_a_fault  # type: ignore[method-assign]
    if fault.file:
        files._reach_the_disk = torn
    if fault.room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.room, resource.RLIM_INFINITY))


def main() -> None:
    in_small_steps()
    told = json.loads(sys.argv[1])
    # Who starts a program in the background lets it ignore some of these.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    folder = Path(told["folder"])
    arm(Fault(**told.get("fault", {})), Path(told["word"]))
    if told["engine"] == STUDY:
        from bayes_dasl.cli import app

        app(["run", str(Path(__file__).resolve()), "--out", str(folder), "--key", str(KEY)])
    model, engine = FITS[told["engine"]]
    try:
        post = bd.fit(model, seen(), engine, checkpoint=folder, key=KEY)
    except BayesDaslError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    bd.save(post, Path(told["word"]) / "returned.nc")


if __name__ == "__main__":
    main()
