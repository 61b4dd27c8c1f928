"""Findings of checks, and the verdict on the sampling and the model.

A check computes a statistic and compares it with thresholds by `grade`. It puts the resulting level
and a message into a `Finding`. A check may pass a remedy in any case: a good finding drops it.
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
"""The levels from best to worst. A check that passed but could hardly have failed is
inconclusive."""
FAILURES = "solver failures"
SPREAD = "spread of the draws"
SOLVER_ACCURACY = "solver accuracy"
EVIDENCE = "log evidence"
PARTICLES = "populations of particles"
"""The value of the attribute `draws_are` for engines with populations of particles, not chains."""
SAMPLER = "bd.NUTS()"
"""The engine that remedies recommend, since it samples the exact posterior."""
_UNSHOWN = "nothing shows that it is right"
_LOST = "could not be looked at"


@dataclass(frozen=True)
class Finding:
    """The result of one check of a fit.

    Args:
        level: "good", "inconclusive", "warning" or "bad". A check that passed but could hardly have
            failed is inconclusive.
        subject: the quantity that was checked.
        message: the result in words.
        remedy: what the user can do; dropped if the level is good.
        aspect: "sampling" for a check of the draws, "model" for a check of the model.

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

    `level` is the worst level of all findings. `sampling` and `model` are the worst levels of the
    findings with that aspect. `model` is None if there are no findings on the model.

    Args:
        findings: the results of all checks.
        unseen: a sentence on a check that could have been made but was not; empty by default.
        of: the noun for the model in the verdict, "model" by default.
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
        """Return the findings with an aspect."""
        return [f for f in self.findings if f.aspect == aspect]

    @property
    def verdict(self) -> str:
        """The verdict on the sampling and the model, in sentences."""
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
        # Solver failures change the meaning of the draws, so the verdict always names them.
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
        """Convert the diagnosis to plain values that JSON can hold.

        Returns:
            A dict with the keys `level`, `sampling`, `model`, `verdict`, and `findings`, a list
            with a dict for each finding.
        """
        names = ("level", "sampling", "model", "verdict")
        values: dict[str, object] = {name: getattr(self, name) for name in names}
        return values | {"findings": [asdict(finding) for finding in self.findings]}


def _worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level of some findings; "good" if there are none."""
    return LEVELS[max((LEVELS.index(f.level) for f in findings), default=0)]


def _subjects_at(findings: Iterable[Finding], level: Level) -> str:
    """Return the subjects of the findings with a level, as one text."""
    return ", ".join(dict.fromkeys(f.subject for f in findings if f.level == level))


def model_finding(level: Level, subject: str, message: str, remedy: str = "") -> Finding:
    """Return a `Finding` whose aspect is the model; arguments as for `Finding`."""
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
    """Return a finding on the share of draws that have a fault, such as a solver failure.

    Args:
        subject: the quantity that was checked.
        found: for each draw, whether it has the fault.
        draws: the noun for the draws in the message.
        seldom: the largest share of draws with the fault for the level "good".
        often: the largest share for the level "warning"; above it the level is "bad".
        remedy: what the user can do.
        lead: words before the count in the message.
        met: words after "none" in the message if no draw has the fault.
        group: the group of the results that holds the flags, for the message.
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
    """Return findings as JSON text, which an attribute of a result can hold."""
    return json.dumps([asdict(finding) for finding in findings])


def from_json(text: str) -> tuple[Finding, ...]:
    """Return the findings from a text that `to_json` wrote."""
    return tuple(Finding(**held) for held in json.loads(text))


def kept_findings(tree: xr.DataTree) -> tuple[Finding, ...]:
    """Return the findings that an engine or an update stored in the attributes of a result."""
    return from_json(tree.attrs.get("findings", "[]"))


def add_finding(tree: xr.DataTree, finding: Finding) -> None:
    """Append a finding to those in the attributes of a result, in place."""
    tree.attrs["findings"] = to_json((*kept_findings(tree), finding))


def beside(value: float, bound: float) -> tuple[str, str]:
    """Format a number and its bound, with enough decimals that the two texts differ.

    Returns:
        The text of the value, with three to eight decimals, and the text of the bound.
    """
    digits = next((d for d in range(3, 9) if f"{value:.{d}f}" != f"{bound:.{d}f}"), 3)
    return f"{value:.{digits}f}", f"{bound:.4g}" if digits == 3 else f"{bound:.{digits}f}"


def nested_finding(found: float, of: str = "", allowed: float = 1.0) -> Finding:
    """Return a finding on the nested R-hat of groups of chains (superchains).

    Args:
        found: the highest nested R-hat.
        of: words after "nested R-hat" in the subject.
        allowed: the factor by which the allowed excess over 1, which is 0.01, is increased. It is
            larger than 1 for the maximum over many quantities.
    """
    most = 1 + 0.01 * allowed
    value, bound = beside(found, most)
    return Finding(
        grade(-found, good=-most, warning=-1.05),
        f"nested R-hat{of}",
        f"highest {value}, good below {bound}",
        "run a longer warm-up, or more draws in each chain",
    )


def unshown_spread(why: str) -> Finding:
    """Return a warning that nothing confirms the spread of approximate draws.

    Args:
        why: the reason, in words.
    """
    remedy = (
        f"take {SAMPLER}, or see whether held-out data bear it out: bd.diagnose(post, forecast, "
        "test)"
    )
    return Finding("warning", SPREAD, f"{_UNSHOWN}: {why}", remedy)


def leaves_unshown(finding: Finding) -> bool:
    """Whether a finding is a warning by `unshown_spread`."""
    return finding.subject == SPREAD and finding.message.startswith(_UNSHOWN)


def borne_out(finding: Finding, shown: str) -> Finding:
    """Change a warning by `unshown_spread` to a good finding; return other findings unchanged.

    Args:
        finding: the finding.
        shown: the new message, which says what confirms the spread.
    """
    if leaves_unshown(finding):
        return replace(finding, level="good", message=shown)
    return finding


def lost_look(subject: str, error: Exception) -> Finding:
    """Return a warning that a check of the draws could not be made because of an error.

    Args:
        subject: the quantity that was to be checked.
        error: the error.
    """
    remedy = (
        "the draws are as they were; if your equations raise this, mend them, else please report it"
    )
    return Finding("warning", subject, f"{_LOST}: {type(error).__name__}: {error}", remedy)


def is_lost_look(finding: Finding) -> bool:
    """Whether a finding is a warning by `lost_look`."""
    return finding.message.startswith(_LOST)


def for_a_failing_solve(settings: Iterable[str]) -> str:
    """Return the remedy for failing solves, in words.

    Args:
        settings: those of the settings `max_steps`, `rtol` and `solver` that the layer has.
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
    """Return a finding on the log evidence.

    Args:
        value: the log evidence.
        error: its standard error; None if it was estimated by one run only.
        better: the remedy for a large standard error.
    """
    if error is None:
        several = "take several runs for a standard error"
        return Finding("warning", EVIDENCE, f"{value:.2f}, of one run", several)
    level = grade(-error, good=-0.3, warning=-1.0)
    return Finding(level, EVIDENCE, f"{value:.2f} with a standard error of {error:.2g}", better)


def grade(value: float, *, good: float, warning: float) -> Level:
    """Return the level of a statistic for which larger values are better.

    Args:
        value: the statistic.
        good: the smallest value that is good.
        warning: the smallest value that is only a warning; below it the level is "bad".
    """
    return "good" if value >= good else "warning" if value >= warning else "bad"
