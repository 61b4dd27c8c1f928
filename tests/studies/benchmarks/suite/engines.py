"""One fit by each engine, with its defaults; each returns draws and figures of the same form."""

import dataclasses
import resource
import time

import jax
import numpy as np
from arviz_stats.base import array_stats

from . import stan_engine
from .cases import Case, Draws

CHAINS = 4
NO_BOUND = 1e9
COMPILATION = {
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
}


@dataclasses.dataclass
class Fit:
    """Draws `(chain, draw, …)` of the compared quantities; seconds with and without compilation;
    gradients.

    `processor` seconds are those of all threads and processes, compilation included: where the
    machine is shared, they compare engines that wall time does not.
    """

    draws: Draws
    seconds: float
    sampling: float
    leapfrogs: int
    warmup_leapfrogs: int | None
    divergences: int
    memory_kb: int
    processor: float


class Clock:
    """Wall time from now, and how much of it JAX traced, lowered or compiled.

    Traces nest and compilations may run in threads, so the intervals are united, not added up.
    """

    def __init__(self):
        self._intervals: list[tuple[float, float]] = []
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        self._began, self._processor = time.perf_counter(), time.process_time()

    def _hear(self, event: str, seconds: float, **_) -> None:
        if event in COMPILATION:
            now = time.perf_counter()
            self._intervals.append((now - seconds, now))

    def read(self) -> tuple[float, float]:
        """Seconds in all, and without compilation."""
        total, compiling, reached = time.perf_counter() - self._began, 0.0, self._began
        for begin, end in sorted(self._intervals):
            compiling += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        return total, total - compiling

    @property
    def processor(self) -> float:
        """Seconds of the processor so far, of all threads."""
        return time.process_time() - self._processor


def _memory_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def ours(case: Case, key: int, draws: int | None) -> Fit:
    """`bd.fit` with its defaults.

    It compiles in threads while other work goes on, so what is not compilation may be less than its
    own times of the search for modes, warm-up and draws: the larger figure counts.
    """
    import bayes_dasl as bd

    engine = bd.NUTS() if draws is None else bd.NUTS(warmup=max(draws, 50), draws=draws)
    clock = Clock()
    post = bd.fit(case.model, case.data, engine, progress=False, key=key)
    seconds, rest = clock.read()
    sampling = max(
        rest, sum(post.attrs[f"{phase}_time_s"] for phase in ("start", "warmup", "draws"))
    )
    stats = post["sample_stats"]
    return Fit(
        case.ours(post),
        seconds,
        float(sampling),
        int(stats["n_steps"].sum()),
        post.attrs["start_steps"] + post.attrs["warmup_steps"],
        int(stats["diverging"].sum()),
        _memory_kb(),
        clock.processor,
    )


def numpyro(case: Case, key: int, draws: int | None) -> Fit:
    """`numpyro.infer.NUTS` with its defaults on the model written by hand: 1000 + 1000 draws.

    Chains run one after another: NumPyro has two devices for four chains. It could not use four,
    since Diffrax's adjoint does not work inside `pmap` (diffrax#765).
    """
    from numpyro.infer import MCMC, NUTS

    number = 1000 if draws is None else draws
    clock = Clock()
    mcmc = MCMC(
        NUTS(case.by_hand),
        num_warmup=number,
        num_samples=number,
        num_chains=CHAINS,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(key), extra_fields=("num_steps", "diverging"))
    samples = {name: np.asarray(v) for name, v in mcmc.get_samples(group_by_chain=True).items()}
    seconds, sampling = clock.read()
    extra = mcmc.get_extra_fields()
    return Fit(
        {name: samples[name] for name in case.compared},
        seconds,
        sampling,
        int(extra["num_steps"].sum()),
        None,
        int(extra["diverging"].sum()),
        _memory_kb(),
        clock.processor,
    )


def blackjax(case: Case, key: int, draws: int | None) -> Fit:
    """BlackJAX's window adaptation and NUTS with their defaults, 1000 + 1000 draws, chains by
    `vmap`.

    The log density is that of the NumPyro model, starts are prior draws with a finite density, as
    BlackJAX's documentation shows. Its other way, `pmap`, does not work with Diffrax's adjoint
    (diffrax#765).
    """
    import blackjax
    from numpyro.infer import init_to_sample
    from numpyro.infer.util import initialize_model

    number = 1000 if draws is None else draws
    clock = Clock()
    key_init, key_warmup, key_draws = jax.random.split(jax.random.key(key), 3)
    begin = initialize_model(
        jax.random.split(key_init, CHAINS), case.by_hand, init_strategy=init_to_sample()
    )

    def log_density(position):
        return -begin.potential_fn(position)

    warmup = blackjax.window_adaptation(blackjax.nuts, log_density)

    def one_chain(key_warmup, key_draws, position):
        (state, parameters), adaptation = warmup.run(key_warmup, position, number)
        kernel = blackjax.nuts(log_density, **parameters).step

        def step(state, key):
            state, info = kernel(key, state)
            return state, (state.position, info.num_integration_steps, info.is_divergent)

        _, trace = jax.lax.scan(step, state, jax.random.split(key_draws, number))
        return *trace, adaptation.info.num_integration_steps

    keys = jax.random.split(key_warmup, CHAINS), jax.random.split(key_draws, CHAINS)
    run = jax.jit(jax.vmap(one_chain))
    positions, leapfrogs, divergent, warmup_leapfrogs = run(*keys, begin.param_info.z)
    values = jax.jit(jax.vmap(jax.vmap(begin.postprocess_fn)))(positions)
    samples = {name: np.asarray(values[name]) for name in case.compared}
    seconds, sampling = clock.read()
    return Fit(
        samples,
        seconds,
        sampling,
        int(leapfrogs.sum()),
        int(warmup_leapfrogs.sum()),
        int(divergent.sum()),
        _memory_kb(),
        clock.processor,
    )


def stan(case: Case, key: int, draws: int | None) -> Fit:
    """Stan's defaults, 1000 + 1000 draws, 4 chains in processes of their own; the build is timed
    once a problem.

    Peak memory is that of its largest process.
    """
    built = stan_engine.build(case)
    options = {} if draws is None else {"num_warmup": draws, "num_samples": draws}
    draws_of, figures = stan_engine.sample(case, key, options)
    return Fit(
        draws_of,
        built["seconds"] + figures["seconds"],
        figures["seconds"],
        figures["leapfrogs"],
        figures["warmup_leapfrogs"],
        figures["divergences"],
        figures["memory_kb"],
        built["processor"] + figures["processor"],
    )


ENGINES = {"ours": ours, "numpyro": numpyro, "blackjax": blackjax, "stan": stan}


def judge(fit: Fit) -> dict:
    """The figures of a fit as plain values, with mean, sd and the mean's Monte-Carlo error of every
    quantity.
    """
    figures = {name: value for name, value in vars(fit).items() if name != "draws"}
    flat = _columns(fit.draws)
    means = {
        "mean": {n: float(v.mean()) for n, v in flat.items()},
        "sd": {n: float(v.std()) for n, v in flat.items()},
    }
    means["mcse"] = {
        n: float(array_stats.mcse(v, method="mean", chain_axis=0, draw_axis=1))
        for n, v in flat.items()
    }
    return figures | worst(fit.draws) | means


def worst(draws: Draws) -> dict[str, float]:
    """The lowest effective sample sizes and the highest R-hat over all quantities."""
    values = np.stack(list(_columns(draws).values()), axis=-1)
    where = {"chain_axis": 0, "draw_axis": 1}
    # A chain that never moved has no variance: no effective draw (ArviZ counts all), and an R-hat
    # without bound.
    still = np.any(np.ptp(values, axis=1) == 0, axis=0)
    with np.errstate(all="ignore"):
        bulk = array_stats.ess(values, method="bulk", **where)
        tail = array_stats.ess(values, method="tail", prob=0.05, **where)
        rhat = array_stats.rhat(values, **where)
    bulk, tail = (float(np.where(still, 0.0, np.nan_to_num(ess)).min()) for ess in (bulk, tail))
    rhat = float(
        np.where(still, NO_BOUND, np.nan_to_num(rhat, nan=NO_BOUND, posinf=NO_BOUND)).max()
    )
    return {"bulk_ess": bulk, "tail_ess": tail, "rhat": rhat, "draws": values[..., 0].size}


def _columns(draws: Draws) -> dict[str, np.ndarray]:
    """One array `(chain, draw)` for each number."""
    return {
        f"{name}[{i}]" if v.ndim > 2 else name: column
        for name, v in draws.items()
        for i, column in enumerate(np.moveaxis(v.reshape(*v.shape[:2], -1), -1, 0))
    }
