"""Findings of checks, and the verdict on sampling and model.

A check computes a *statistic*, compares it with *thresholds* (`grade`), and puts the resulting
level and a *message* into a `Finding`. Every finding may be given a remedy; a good one drops it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

import numpy as np
import xarray as xr

from .errors import ModelError

type Level = Literal["good", "inconclusive", "warning", "bad"]
type Aspect = Literal["sampling", "model"]

LEVELS: tuple[Level, ...] = ("good", "inconclusive", "warning", "bad")
"""From best to worst. A check that passed and could hardly have failed is inconclusive."""
FAILURES = "solver failures"
SPREAD = "spread of the draws"
SOLVER_ACCURACY = "solver accuracy"
EVIDENCE = "log evidence"
PARTICLES = "populations of particles"
"""The value of the attribute `draws_are` for engines that move particles instead of chains."""
SAMPLER = "bd.NUTS()"
"""The engine that remedies recommend: it samples the posterior itself."""
_UNSHOWN = "nothing shows that it is right"
_LOST = "could not be looked at"


@dataclass(frozen=True)
class Finding:
    """The result of one check, with a remedy in words unless it is good.

    Args:
        level: "good", "inconclusive", "warning" or "bad". A check that could hardly have failed is
            inconclusive.
        subject: the quantity that was checked.
        message: the result.
        remedy: how to improve it; dropped if the level is good.
        aspect: "sampling" for a check of the draws, "model" for a check of the fit.

    Raises:
        ModelError: for another level or aspect.
    """

    level: Level
    subject: str
    message: str
    remedy: str = ""
    aspect: Aspect = "sampling"

    def __post_init__(self):
        for field, words in (("level", LEVELS), ("aspect", get_args(Aspect.__value__))):
            if (value := getattr(self, field)) not in words:
                raise ModelError(
                    f"the {field} of a Finding must be one of {', '.join(words)}, not {value!r}"
                )
        # Callers need not decide whether a remedy is due: only faults have one.
        if self.level == "good":
            object.__setattr__(self, "remedy", "")

    def __str__(self) -> str:
        line = f"[{self.level}] {self.subject}: {self.message}"
        if self.remedy:
            return f"{line}; remedy: {self.remedy}"
        return line


@dataclass(frozen=True)
class Diagnosis:
    """All findings on a fit, with a verdict on the sampling and on the model.

    `level` is the worst level of all findings. `sampling` and `model` are the worst of each aspect;
    `model` is None if no check could tell whether the model fits.

    Args:
        findings: the results of all checks.
        unseen: a sentence on a check that was possible and not made; empty by default.
        of: the noun for the second aspect, "model" by default.
    """

    findings: tuple[Finding, ...]
    unseen: str = ""
    of: str = "model"

    @property
    def level(self) -> Level:
        """The worst level of all findings."""
        return _worst(self.findings)

    @property
    def sampling(self) -> Level:
        """The worst level of the findings on the sampling."""
        return _worst(self._of("sampling"))

    @property
    def model(self) -> Level | None:
        """The worst level of the findings on the model; None if there are none."""
        found = self._of("model")
        if found:
            return _worst(found)
        return None

    def _of(self, aspect: Aspect) -> list[Finding]:
        return [f for f in self.findings if f.aspect == aspect]

    @property
    def verdict(self) -> str:
        """The verdict on sampling and model, in sentences."""
        said = f"{self.of_the_sampling}. {self._of_the_model()}."
        if self.unseen:
            return f"{said} {self.unseen}"
        return said

    @property
    def of_the_sampling(self) -> str:
        """The verdict on the sampling, without a full stop."""
        blamed = _subjects_at(self._of("sampling"), self.sampling)
        sampling = {
            "good": "The sampling can be trusted: every check passed",
            "inconclusive": f"Whether the sampling can be trusted is not shown: see {blamed}",
            "warning": f"The sampling can be used with care: see {blamed}",
            "bad": f"Do not rely on this sampling yet: {blamed}",
        }[self.sampling]
        # Failures change the meaning of draws, so that the verdict always names them.
        failures = [
            f.message
            for f in self.findings
            if f.subject == FAILURES and not f.message.startswith("none")
        ]
        return "; ".join([sampling, *failures])

    def _of_the_model(self) -> str:
        """Return the verdict on the model, without a full stop."""
        if self.model is None:
            takes = "a forecast at the times of the data, of at least eight values"
            return f"Whether the {self.of} fits was not looked at: that takes {takes}"
        blamed = _subjects_at(self._of("model"), self.model)
        return {
            "good": f"The {self.of} fits what was looked at: {blamed}",
            "inconclusive": f"Whether the {self.of} fits is not shown: {blamed} could hardly have "
            "contradicted it",
            "warning": f"The {self.of} fits with reservations: see {blamed}",
            "bad": f"The {self.of} does not fit: {blamed}",
        }[self.model]

    def __str__(self) -> str:
        return "\n".join([self.verdict, *map(str, self.findings)])

    def to_dict(self) -> dict[str, object]:
        """Return the level, the verdict and the findings as plain values, ready for JSON.

        Returns:
            A dict with `level`, `sampling`, `model`, `verdict`, and `findings` as a list of dicts.
        """
        names = ("level", "sampling", "model", "verdict")
        values: dict[str, object] = {name: getattr(self, name) for name in names}
        return values | {"findings": [asdict(finding) for finding in self.findings]}


def _worst(findings: Iterable[Finding]) -> Level:
    return LEVELS[max((LEVELS.index(f.level) for f in findings), default=0)]


def _subjects_at(findings: Iterable[Finding], level: Level) -> str:
    return ", ".join(dict.fromkeys(f.subject for f in findings if f.level == level))


def model_finding(level: Level, subject: str, message: str, remedy: str = "") -> Finding:
    """Return a finding on the model instead of the sampling."""
    return Finding(level, subject, message, remedy, aspect="model")


def counted(
    subject: str,
    found: np.ndarray,
    draws: str,
    *,
    seldom: float,
    often: float = 1.0,
    remedy: str,
    lead: str = "",
    met: str = "",
    group: str = "",
) -> Finding:
    """A finding on how many draws have a fault: good up to one share, bad above another.

    Args:
        subject: the quantity that was checked.
        found: whether each draw has the fault.
        draws: the name of the draws.
        seldom: the largest share that is good.
        often: the largest share that is only a warning.
        remedy: how to improve it.
        lead: words before the count.
        met: a word after "none".
        group: the group that holds the flags.
    """
    # 1. The statistic.
    count = int(found.sum())
    size = found.size
    if not count:
        return Finding("good", subject, f"none{met} in {size} {draws}{group and f' ({group})'}")
    share = f"{100 * count / size:.3g} %{group and f', {group}'}"
    message = f"{lead}{count} of {size} {draws} ({share})"
    # 2. Thresholds are shares of the draws.
    if count <= seldom * size:
        return Finding("good", subject, f"{message}: too few to matter")
    return Finding("bad" if count > often * size else "warning", subject, message, remedy)


def to_json(findings: Iterable[Finding]) -> str:
    """Return findings as JSON, for an attribute."""
    return json.dumps([asdict(finding) for finding in findings])


def from_json(text: str) -> tuple[Finding, ...]:
    """Return the findings in a text by `to_json`."""
    return tuple(Finding(**held) for held in json.loads(text))


def kept_findings(tree: xr.DataTree) -> tuple[Finding, ...]:
    """Return the findings that an engine or an update stored in the attributes of a tree."""
    return from_json(tree.attrs.get("findings", "[]"))


def add_finding(tree: xr.DataTree, finding: Finding) -> None:
    """Add a finding to those in the attributes of a result."""
    tree.attrs["findings"] = to_json((*kept_findings(tree), finding))


def beside(value: float, bound: float) -> tuple[str, str]:
    """Format a number and its bound, with at least three decimals and enough to differ."""
    digits = next((d for d in range(3, 9) if f"{value:.{d}f}" != f"{bound:.{d}f}"), 3)
    return f"{value:.{digits}f}", f"{bound:.4g}" if digits == 3 else f"{bound:.{digits}f}"


def nested_finding(found: float, of: str = "", allowed: float = 1.0) -> Finding:
    """A finding on the nested R-hat of superchains; many quantities have a wider `allowed`."""
    most = 1 + 0.01 * allowed
    value, bound = beside(found, most)
    return Finding(
        grade(-found, good=-most, warning=-1.05),
        f"nested R-hat{of}",
        f"highest {value}, good below {bound}",
        "run a longer warm-up, or more draws in each chain",
    )


def unshown_spread(why: str) -> Finding:
    """Return a warning on approximate draws whose spread was not confirmed."""
    remedy = (
        f"take {SAMPLER}, or see whether held-out data bear it out: bd.diagnose(post, forecast, "
        "test)"
    )
    return Finding("warning", SPREAD, f"{_UNSHOWN}: {why}", remedy)


def leaves_unshown(finding: Finding) -> bool:
    """Whether a finding says that the spread of the draws is unconfirmed."""
    return finding.subject == SPREAD and finding.message.startswith(_UNSHOWN)


def borne_out(finding: Finding, shown: str) -> Finding:
    """Return a finding on an unconfirmed spread as good; other findings stay as they are."""
    if leaves_unshown(finding):
        return replace(finding, level="good", message=shown)
    return finding


def lost_look(subject: str, error: Exception) -> Finding:
    """A warning that a check of the draws failed with an error."""
    remedy = (
        "the draws are as they were; if your equations raise this, mend them, else please report it"
    )
    return Finding("warning", subject, f"{_LOST}: {type(error).__name__}: {error}", remedy)


def is_lost_look(finding: Finding) -> bool:
    """Whether a finding says that a check failed with an error."""
    return finding.message.startswith(_LOST)


def for_a_failing_solve(settings: Iterable[str]) -> str:
    """Remedy for failing solves, by the solver settings that a layer has.

    The settings are `max_steps`, `rtol` and `solver`.
    """
    ways = {
        "max_steps": "raise the solver's max_steps",
        "rtol": "loosen its tolerances",
        "solver": "use a stiff solver such as 'rodas5p'",
    }
    # In the order of effort: more steps first, another solver last.
    found = [ways[name] for name in ways if name in settings]
    if not found:
        return (
            "see where the equations are not finite: at what they divide by, or take a root or "
            "logarithm of"
        )
    return " or ".join([", ".join(found[:-1]), found[-1]] if found[1:] else found)


def evidence_finding(value: float, error: float | None, better: str) -> Finding:
    """A finding on the log evidence and its standard error; `better` is the remedy."""
    if error is None:
        several = "take several runs for a standard error"
        return Finding("warning", EVIDENCE, f"{value:.2f}, of one run", several)
    level = grade(-error, good=-0.3, warning=-1.0)
    return Finding(level, EVIDENCE, f"{value:.2f} with a standard error of {error:.2g}", better)


def grade(value: float, *, good: float, warning: float) -> Level:
    """Grade a statistic: good from one value upwards, a warning from a lower one, else bad."""
    return "good" if value >= good else "warning" if value >= warning else "bad"
