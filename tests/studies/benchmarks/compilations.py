"""How many programs the first fit, forecast and report of lynx–hare trace and compile, and the
seconds that takes.

Run: `uv run python -m tests.studies.benchmarks.compilations [--of CHECKOUT]`

The package and the case study come from the checkout, this one unless another is given. No program
is read from disk.
"""

import argparse
import collections
import os
import sys
import time
from pathlib import Path

from .. import ROOT

STAGES = {
    "/jax/core/compile/jaxpr_trace_duration": "traced",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowered",
    "/jax/core/compile/backend_compile_duration": "compiled",
}


class Watch:
    """Counts what JAX says it traces, lowers and compiles, by the name of the function."""

    def __init__(self):
        self.counts = {stage: collections.Counter() for stage in STAGES.values()}
        self.seconds = {stage: collections.Counter() for stage in STAGES.values()}

    def __call__(self, event: str, seconds: float, **facts) -> None:
        if stage := STAGES.get(event):
            name = facts.get("fun_name", "?").removeprefix("jit(").removesuffix(")")
            self.counts[stage][name] += 1
            self.seconds[stage][name] += seconds

    def report(self, step: str, wall: float, cpu: float) -> None:
        said = (
            f"{n.total()} {stage} in {self.seconds[stage].total():.2f} s"
            for stage, n in self.counts.items()
        )
        print(f"{step}: {wall:.2f} s, {cpu:.2f} s of processor; {', '.join(said)}")
        every = sum(self.seconds.values(), collections.Counter())
        for name, _ in every.most_common():
            done = ", ".join(
                f"{n[name]} {stage} {self.seconds[stage][name]:.2f}"
                for stage, n in self.counts.items()
            )
            print(f"    {name}: {done}")
        for counter in (*self.counts.values(), *self.seconds.values()):
            counter.clear()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests.studies.benchmarks.compilations", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--of", type=Path, default=ROOT, help="a checkout of another commit")
    root = parser.parse_args().of.resolve()
    os.environ["BAYES_DASL_CACHE"] = "off"
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    sys.path.insert(0, str(root))
    import jax

    watch = Watch()
    jax.monitoring.register_event_duration_secs_listener(watch)
    clocks = [(time.perf_counter(), time.process_time())]

    def done(step: str) -> None:
        clocks.append((time.perf_counter(), time.process_time()))
        watch.report(step, *(now - before for before, now in zip(*clocks[-2:], strict=True)))

    import bayes_dasl as bd
    from case_studies import lynx_hare

    study = lynx_hare.study()
    train, test = bd.split(study.data, time=study.split)
    model = study.competitors["mechanistic"]
    done("import and model")
    post = bd.fit(model, train, progress=False)
    done("fit")
    print(bd.diagnose(post).verdict)
    done("diagnose")
    forecast = bd.forecast(model, post, study.data)
    done("forecast")
    bd.report(post, forecast, test)
    done("report")


if __name__ == "__main__":
    main()
