"""The suite's section of docs/measurements/benchmarks.md, from its results: one table a problem, and the ratios
to each peer.
"""

import math
import statistics
from collections.abc import Callable

from ...pages import table
from ...rows import age
from .cases import NAMES, load, ours

ENGINES = ("ours", "numpyro", "blackjax", "stan")
LABELS = {"ours": "ours", "numpyro": "NumPyro", "blackjax": "BlackJAX", "stan": "Stan"}
STUCK, MIXED = 1.1, 1.01
KINDS = ("mean", "sd")
COLUMNS = {
    "seconds": "seconds",
    "sampling": "of which sampling",
    "bulk_ess": "bulk ESS",
    "tail_ess": "tail ESS",
    "bulk_per_second": "bulk ESS/s, all",
    "bulk_per_sampling": "bulk ESS/s, sampling",
    "tail_per_second": "tail ESS/s, all",
    "tail_per_sampling": "tail ESS/s, sampling",
    "processor": "seconds of the processor",
    "bulk_per_processor": "bulk ESS per second of the processor",
    "per_gradient": "bulk ESS per 1000 gradients, draws",
    "per_all_gradients": "the same, warm-up and draws",
    "tail_per_gradient": "tail ESS per 1000 gradients, draws",
    "rhat": "highest R-hat",
    "shift": "largest shift of a mean, sd",
    "apart": "largest difference from ours, Monte-Carlo errors",
    "divergences": "divergences",
    "memory": "memory, MB",
}
RATIOS = {
    "bulk_per_second": "bulk ESS/s, all",
    "bulk_per_sampling": "bulk ESS/s, sampling",
    "bulk_per_processor": "bulk ESS per second of the processor",
    "per_gradient": "bulk ESS per gradient, draws",
    "per_all_gradients": "the same, warm-up and draws",
}
NOTE = """\
Each cell is the median over the keys, with the lowest and the highest in brackets. Every fit runs in a process of its
own without a compilation cache. Times begin when data and model are there and end with the draws in memory: imports
do not count. "Sampling" is all that is not compilation; for Stan, compilation is its C++ build, timed once a problem.
ESS and R-hat are the worst over all parameters; in the hybrid, over the science parameters and the trajectories, not
the weights. A gradient is one leapfrog step or one step of the search for modes; NumPyro does not count those of its
warm-up. Ours and Stan use both cores; NumPyro runs its four chains one after another on one core (Diffrax's adjoint
does not work inside its `pmap`, diffrax#765), BlackJAX all four in one `vmap`. The stiff problem is solved by Rodas5P
in ours, by Kvaerno3 in NumPyro and BlackJAX, by BDF in Stan.

A fit over the limit is stopped; once most keys of an engine are stopped, its median is settled and the others are not
run. It counts as no effective draw; sampling time, R-hat, shift, divergences and memory are of the fits that ended. A
ratio to a peer that never ended is a bound (>): as if its 4000 draws had been worth 4000 independent ones and ready at
the limit, and 80 s of it had been compilation. A bound below one leaves open which is faster. Where at least half the
keys of a peer were stopped, or *stuck* (R-hat above 1.1), no ratio of medians is given: that peer failed, and how fast
is of no use. A shift is against the median of all fits with R-hat below 1.01, whatever the engine; a difference from
ours is that of the mean with the same key, in Monte-Carlo errors of both. Memory is that of the largest process: all
chains for JAX, one of the four chains or their server for Stan. Seconds of the processor are those of all threads and
processes, compilation included: they compare engines where other work shares the machine, but for what that work takes
of its caches. Rows from before they were counted have none."""
TAIL = ("tail_per_second", "tail_per_sampling", "tail_per_gradient")
STOPPED_DRAWS, COMPILING = 4000, 80.0

type Result = dict
type Figures = dict[str, float]


def derived(result: Result) -> Figures:
    """The columns of one fit; one that was stopped or failed made no effective draw."""
    if result.get("stopped") or "error" in result:
        none = dict.fromkeys(("bulk_ess", "tail_ess", *RATIOS, *TAIL), 0.0)
        if result["engine"] == "numpyro":
            del none["per_all_gradients"]
        return none | ({"seconds": result["limit"]} if result.get("stopped") else {})
    figures = {
        name: float(result[name])
        for name in ("seconds", "sampling", "bulk_ess", "tail_ess", "divergences")
    }
    for kind in ("bulk", "tail"):
        figures[f"{kind}_per_second"] = result[f"{kind}_ess"] / result["seconds"]
        figures[f"{kind}_per_sampling"] = result[f"{kind}_ess"] / result["sampling"]
    if "processor" in result:
        figures["processor"] = result["processor"]
        figures["bulk_per_processor"] = result["bulk_ess"] / result["processor"]
    figures["per_gradient"] = 1000 * result["bulk_ess"] / result["leapfrogs"]
    figures["tail_per_gradient"] = 1000 * result["tail_ess"] / result["leapfrogs"]
    if result["warmup_leapfrogs"] is not None:
        figures["per_all_gradients"] = (
            1000 * result["bulk_ess"] / (result["leapfrogs"] + result["warmup_leapfrogs"])
        )
    return figures | {"rhat": result["rhat"], "memory": result["memory_kb"] / 1024}


def shifts(results: dict[str, list[Result]]) -> dict[int, float]:
    """How far the means of each fit lie from those of all fits that mixed, in standard deviations;
    by identity.
    """
    mixed = [fit for fits in results.values() for fit in fits if fit.get("rhat", math.inf) < MIXED]
    if not mixed:
        return {}
    middle = {
        kind: {n: statistics.median(fit[kind][n] for fit in mixed) for n in mixed[0]["mean"]}
        for kind in KINDS
    }
    return {
        id(fit): max(
            abs(fit["mean"][name] - mean) / middle["sd"][name]
            for name, mean in middle["mean"].items()
        )
        for fits in results.values()
        for fit in fits
        if "mean" in fit
    }


def apart(results: dict[str, list[Result]]) -> dict[int, float]:
    """How far the mean of any quantity lies from ours with the same key, in Monte-Carlo errors of
    both; by identity.
    """
    own = {fit["key"]: fit for fit in results.get("ours", []) if "mcse" in fit}
    return {
        id(fit): max(
            abs(mean - own[fit["key"]]["mean"][name])
            / math.hypot(fit["mcse"][name], own[fit["key"]]["mcse"][name])
            for name, mean in fit["mean"].items()
        )
        for engine, fits in results.items()
        for fit in fits
        if engine != "ours" and "mcse" in fit and fit["key"] in own
    }


def number(x: float) -> str:
    """Three digits that count, without an exponent."""
    if x > 1e6:
        return "∞"
    if x == 0 or not math.isfinite(x):
        return f"{x:.0f}"
    return f"{x:.{max(0, 2 - math.floor(math.log10(abs(x))))}f}"


def cell(values: list[float], form: Callable[[float], str] = number) -> str:
    if not values:
        return "–"
    middle, low, high = form(statistics.median(values)), form(min(values)), form(max(values))
    return middle if low == high else f"{middle} ({low}–{high})"


def problem_table(results: dict[str, list[Result]]) -> str:
    lines = [["engine", "keys", *COLUMNS.values(), "stuck", "stopped", "failed"]]
    between = {"shift": shifts(results), "apart": apart(results)}
    for engine, fits in results.items():
        known = [
            {n: found[id(fit)] for n, found in between.items() if id(fit) in found} for fit in fits
        ]
        figures = [derived(fit) | also for fit, also in zip(fits, known, strict=True)]
        forms = {"rhat": "{:.3f}".format}
        cells = [cell([f[c] for f in figures if c in f], forms.get(c, number)) for c in COLUMNS]
        stuck = sum(f.get("rhat", 0.0) > STUCK for f in figures)
        stopped = sum(bool(fit.get("stopped")) for fit in fits)
        failed = sum("error" in fit for fit in fits)
        lines.append(
            [LABELS[engine], str(len(fits)), *cells, str(stuck), str(stopped), str(failed)]
        )
    return table(lines)


def ratio(ours: list[Figures], theirs: list[Figures], column: str, *, failed: bool) -> str:
    """Median over median; in brackets, our median over the best of theirs; a bound where none of
    theirs ended.
    """
    own, other = ([f[column] for f in figures if column in f] for figures in (ours, theirs))
    if not own or not other:
        return "–"
    middle, typical = statistics.median(own), statistics.median(other)
    best = f" ({number(middle / max(other))})" if max(other) > 0 else ""
    if failed and best:
        return "failed" + best
    if typical > 0:
        return number(middle / typical) + best
    limits = [f["seconds"] for f in theirs if f["bulk_ess"] == 0 and "seconds" in f]
    if column not in ("bulk_per_second", "bulk_per_sampling") or not limits:
        return "–" + best
    spent = max(limits) - (COMPILING if column == "bulk_per_sampling" else 0.0)
    return f"> {number(middle * spent / STOPPED_DRAWS)}" + best


def summary(by_problem: dict[str, dict[str, list[Result]]]) -> str:
    lines = [["problem", "peer", *RATIOS.values(), "stuck, stopped or failed: ours", "peer"]]
    for problem, results in by_problem.items():
        figures = {engine: [derived(fit) for fit in fits] for engine, fits in results.items()}
        failed = {engine: sum(map(bad, fits)) for engine, fits in results.items()}
        counts = {engine: f"{failed[engine]} of {len(fits)}" for engine, fits in results.items()}
        for engine in figures:
            if engine != "ours" and "ours" in figures:
                mostly = 2 * failed[engine] >= len(results[engine])
                cells = [
                    ratio(figures["ours"], figures[engine], column, failed=mostly)
                    for column in RATIOS
                ]
                lines.append(
                    [f"`{problem}`", LABELS[engine], *cells, counts["ours"], counts[engine]]
                )
    return table(lines)


def bad(result: Result) -> bool:
    return bool(result.get("stopped")) or "error" in result or result["rhat"] > STUCK


def section(results: list[Result]) -> str:
    """What stands in the section, from the last result of each problem, engine and key."""
    by_problem: dict[str, dict[str, list[Result]]] = {}
    for problem in NAMES:
        for engine in ENGINES:
            fits = [r for r in results if (r["problem"], r["engine"]) == (problem, engine)]
            if fits:
                by_problem.setdefault(problem, {})[engine] = fits
    if not by_problem:
        return "No results yet."
    limits = ", ".join(f"{limit:g}" for limit in sorted({r["limit"] for r in results}))
    places: dict[str, list[str]] = {}
    for problem, of_engines in by_problem.items():
        places.setdefault(next(iter(of_engines.values()))[-1]["place"], []).append(f"`{problem}`")
    said = "; ".join(f"{', '.join(problems)}: {place}" for place, problems in places.items())
    head = f"{said}; pystan 3.10; limit {limits} s a fit."
    own = [r for r in results if r["engine"] == "ours"]
    parts = [head, f"Of ours: {age(own, ('problem',), ours)}", NOTE, "### Ours over each peer"]
    parts += [
        "Medians over medians; in brackets, our median over the best that any key of the peer "
        "reached.",
        summary(by_problem),
    ]
    for problem, results_of in by_problem.items():
        parts += [f"### {load(problem).title} (`{problem}`)", problem_table(results_of)]
    return "\n\n".join(parts)
