"""Our NUTS against NumPyro's defaults on the same lynx–hare posterior: effective draws per second.

Run: `uv run python tests/benchmarks/nuts.py`

The rival is what a careful user would write by hand: the same equations, priors, solver and tolerances, a
solver failure that rejects the draw instead of raising, `numpyro.infer.NUTS(model)` with its defaults,
1000 + 1000 draws, 4 chains. Each fit runs in a process of its own, without a compilation cache, the two
by turns. "Sampling" is warm-up and draws without tracing and compilation. A fit that takes longer than four
minutes (a stuck chain can) is stopped and counts as no effective draw in four minutes.
"""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEYS = range(5)
LIMIT = 240
COMPILATION = {
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
}


def lowest_bulk_ess(draws) -> float:
    """The lowest bulk effective sample size over arrays `(chain, draw)`."""
    from arviz_stats.base import array_stats

    return min(float(array_stats.ess(v, method="bulk", chain_axis=0, draw_axis=1)) for v in draws.values())


def ours(key: int) -> dict[str, float]:
    """Fit by `bd.fit`; its sampling alone is the segments that the chains ran."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import numpy as np
    from problems import posteriordb_lynx_hare

    import bayes_dasl as bd
    from bayes_dasl.inference import _chains

    spent = []
    run = _chains.Chains.run

    def timed(self, *arguments):
        self._program.result()  # compilation is not sampling
        began = time.perf_counter()
        trace = run(self, *arguments)
        spent.append(time.perf_counter() - began)
        return trace

    _chains.Chains.run = timed
    model, data = posteriordb_lynx_hare()
    began = time.perf_counter()
    post = bd.fit(model, data, bd.NUTS(chains=4, draws=1000), key=key)
    total = time.perf_counter() - began
    draws = {name: np.asarray(v) for name, v in post["posterior"].data_vars.items()}
    steps = int(post["sample_stats"]["n_steps"].sum())
    return {"ess": lowest_bulk_ess(draws), "total": total, "sampling": sum(spent), "leapfrogs": steps}


def by_hand(key: int) -> dict[str, float]:
    """The same model with `numpyro.infer.NUTS` and its defaults."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import diffrax
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    sys.path[:0] = [str(ROOT)]
    numpyro.set_host_device_count(2)
    from numpyro.infer import MCMC, NUTS

    from case_studies.lynx_hare import HARE, LYNX

    times, pelts = jnp.arange(21.0), jnp.stack([jnp.asarray(HARE, float), jnp.asarray(LYNX, float)], 1)

    def rates(t, z, theta):
        hare, lynx = z
        return jnp.stack([hare * (theta[0] - theta[1] * lynx), lynx * (theta[3] * hare - theta[2])])

    def model(pelts):
        theta = numpyro.sample(
            "theta",
            dist.TruncatedNormal(jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05]), low=0.0),
        )
        start = numpyro.sample("z_init", dist.LogNormal(jnp.log(10.0), 1.0).expand([2]))
        sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]))
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rates), diffrax.Tsit5(), times[0], times[-1], None, start, args=theta,
            saveat=diffrax.SaveAt(ts=times), stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
            throw=False,
        )  # fmt: skip
        ok = (solution.result == diffrax.RESULTS.successful) & jnp.all(jnp.isfinite(solution.ys))
        z = jnp.maximum(jnp.where(ok, solution.ys, 1.0), 1e-12)
        numpyro.factor("ok", jnp.where(ok, 0.0, -jnp.inf))
        numpyro.sample("y", dist.LogNormal(jnp.log(z), sigma), obs=pelts)

    spent = []  # tracing, lowering and compiling: what is left of the wall time is warm-up and draws
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: spent.append(seconds) if event in COMPILATION else None
    )
    began = time.perf_counter()
    mcmc = MCMC(NUTS(model), num_warmup=1000, num_samples=1000, num_chains=4, progress_bar=False)
    mcmc.run(jax.random.key(key), pelts, extra_fields=("num_steps",))
    samples = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
    total = time.perf_counter() - began
    again = total - sum(spent)
    steps = int(mcmc.get_extra_fields()["num_steps"].sum())
    flat = {f"{k}[{i}]": v[..., i] for k, v in samples.items() for i in range(v.shape[-1])}
    return {"ess": lowest_bulk_ess(flat), "total": total, "sampling": again, "leapfrogs": steps}


def measure(who: str, key: int) -> dict[str, float]:
    """One fit in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, who, str(key)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"ess": 0.0, "total": LIMIT, "sampling": LIMIT, "leapfrogs": float("nan")}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    import pandas as pd

    rows = []
    for key, who in itertools.product(KEYS, ("ours", "by_hand")):
        rows.append({"who": who, "key": key, **measure(who, key)})
        print(rows[-1], file=sys.stderr, flush=True)
    table = pd.DataFrame(rows)
    table["ESS/s with compilation"] = table["ess"] / table["total"]
    table["ESS/s of sampling"] = table["ess"] / table["sampling"]
    print(table.round(2).to_string(index=False))
    median = table.drop(columns="key").groupby("who").median()
    print(median.round(2).to_string())
    for column, wanted in (("ESS/s with compilation", 3), ("ESS/s of sampling", 20)):
        ratio = median.loc["ours", column] / median.loc["by_hand", column]
        print(f"{column}: {ratio:.1f} times (wanted: {wanted})")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps({"ours": ours, "by_hand": by_hand}[sys.argv[1]](int(sys.argv[2]))))
    else:
        main()
