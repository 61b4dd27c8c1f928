"""What was looked at, how it stands, and what to do about it:
the parts that a verdict is made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from .errors import ModelError

type Level = Literal["good", "inconclusive", "warning", "bad"]
type Aspect = Literal["sampling", "model"]

LEVELS: tuple[Level, ...] = ("good", "inconclusive", "warning", "bad")
"""From best to worst. Inconclusive is a check that passed and could hardly have failed: nobody is
warned.
"""
FAILURES = "solver failures"
SPREAD = "spread of the draws"
SOLVER_ACCURACY = "solver accuracy"
EVIDENCE = "log evidence"
PARTICLES = "populations of particles"
"""What the draws of an engine are that has particles in runs, in place of chains."""
SAMPLER = "bd.NUTS()"
"""What draws from the posterior itself, to which remedies send the user."""
_UNSHOWN = "nothing shows that it is right"
_LOST = "could not be looked at"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a remedy in words unless it is good.

    Args:
        level: "good", "inconclusive", "warning" or "bad". A check that could hardly have failed is
            inconclusive.
        subject: what was looked at.
        message: how it stands.
        remedy: what to do about it; nothing where it is good.
        aspect: what it speaks of: the draws, "sampling", or whether the "model" fits.

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

    def __str__(self) -> str:
        line = f"[{self.level}] {self.subject}: {self.message}"
        return f"{line}; remedy: {self.remedy}" if self.remedy else line


@dataclass(frozen=True)
class Diagnosis:
    """All findings about a fit, the worst level among them, and a verdict: on the sampling, and on
    the model.

    `level` is the worst of all; `sampling` and `model` are the worst of each, and `model` is none
    where nothing was looked at that could tell whether it fits.

    Args:
        findings: what was looked at, one after the other.
        unseen: what was not looked at and could have been, as a sentence; nothing unless given.
        of: what it is on beside the sampling, the "model" unless it says.
    """

    findings: tuple[Finding, ...]
    unseen: str = ""
    of: str = "model"

    @property
    def level(self) -> Level:
        return _worst(self.findings)

    @property
    def sampling(self) -> Level:
        return _worst(self._of("sampling"))

    @property
    def model(self) -> Level | None:
        found = self._of("model")
        return _worst(found) if found else None

    def _of(self, aspect: Aspect) -> list[Finding]:
        return [f for f in self.findings if f.aspect == aspect]

    @property
    def verdict(self) -> str:
        said = f"{self.of_the_sampling}. {self._of_the_model()}."
        return f"{said} {self.unseen}" if self.unseen else said

    @property
    def of_the_sampling(self) -> str:
        """The verdict's first sentence, without its full stop."""
        blamed = _listed(self._of("sampling"), self.sampling)
        sampling = {
            "good": "The sampling can be trusted: every check passed",
            "inconclusive": f"Whether the sampling can be trusted is not shown: see {blamed}",
            "warning": f"The sampling can be used with care: see {blamed}",
            "bad": f"Do not rely on this sampling yet: {blamed}",
        }[self.sampling]
        failures = [
            f.message
            for f in self.findings
            if f.subject == FAILURES and not f.message.startswith("none")
        ]
        return "; ".join([sampling, *failures])

    def _of_the_model(self) -> str:
        if self.model is None:
            takes = "a forecast at the times of the data, of at least eight values"
            return f"Whether the {self.of} fits was not looked at: that takes {takes}"
        blamed = _listed(self._of("model"), self.model)
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
        """Return the level, the verdict and the findings as plain values, ready for JSON."""
        findings = [asdict(finding) for finding in self.findings]
        levels = {"level": self.level, "sampling": self.sampling, "model": self.model}
        return levels | {"verdict": self.verdict, "findings": findings}


def _worst(findings: Iterable[Finding]) -> Level:
    return LEVELS[max((LEVELS.index(f.level) for f in findings), default=0)]


def _listed(findings: Iterable[Finding], level: Level) -> str:
    return ", ".join(dict.fromkeys(f.subject for f in findings if f.level == level))


def to_json(findings: Iterable[Finding]) -> str:
    """Findings as text, for an attribute."""
    return json.dumps([asdict(finding) for finding in findings])


def from_json(text: str) -> tuple[Finding, ...]:
    """Findings from such text."""
    return tuple(Finding(**held) for held in json.loads(text))


def beside(value: float, bound: float) -> tuple[str, str]:
    """A number and its bound with as many decimals, at least three, as tell them apart."""
    digits = next((d for d in range(3, 9) if f"{value:.{d}f}" != f"{bound:.{d}f}"), 3)
    return f"{value:.{digits}f}", f"{bound:.4g}" if digits == 3 else f"{bound:.{digits}f}"


def nested_finding(found: float, of: str = "", allowed: float = 1.0) -> Finding:
    """Whether superchains agree; of the parameters, unless it is said of what. Of many quantities
    more is `allowed`.
    """
    most = 1 + 0.01 * allowed
    level = grade(-found, good=-most, warning=-1.05)
    remedy = "" if level == "good" else "run a longer warm-up, or more draws in each chain"
    value, bound = beside(found, most)
    return Finding(level, f"nested R-hat{of}", f"highest {value}, good below {bound}", remedy)


def unshown_spread(why: str) -> Finding:
    """Of draws that are no sample of the posterior,
    as long as nothing shows that they are as wide.
    """
    remedy = (
        f"take {SAMPLER}, or see whether held-out data bear it out: bd.diagnose(post, forecast, "
        "test)"
    )
    return Finding("warning", SPREAD, f"{_UNSHOWN}: {why}", remedy)


def leaves_unshown(finding: Finding) -> bool:
    """Whether a finding says that nothing shows the spread of the draws to be right."""
    return finding.subject == SPREAD and finding.message.startswith(_UNSHOWN)


def borne_out(finding: Finding, shown: str) -> Finding:
    """The same finding where the spread of the draws is shown to be right after all."""
    return (
        replace(finding, level="good", message=shown, remedy="")
        if leaves_unshown(finding)
        else finding
    )


def lost_look(subject: str, error: Exception) -> Finding:
    """What could not be looked at beside the draws."""
    remedy = (
        "the draws are as they were; if your equations raise this, mend them, else please report it"
    )
    return Finding("warning", subject, f"{_LOST}: {type(error).__name__}: {error}", remedy)


def is_lost_look(finding: Finding) -> bool:
    """Whether a finding says that something could not be looked at."""
    return finding.message.startswith(_LOST)


def for_a_failing_solve(settings: Iterable[str]) -> str:
    """What may help where solves fail, by those of the settings `max_steps`, `rtol` and `solver`
    that a layer has.
    """
    ways = {
        "max_steps": "raise the solver's max_steps",
        "rtol": "loosen its tolerances",
        "solver": "use a stiff solver such as 'rodas5p'",
    }
    found = [ways[name] for name in ways if name in settings]
    if not found:
        return (
            "see where the equations are not finite: at what they divide by, or take a root or "
            "logarithm of"
        )
    return " or ".join([", ".join(found[:-1]), found[-1]] if found[1:] else found)


def evidence_finding(value: float, error: float | None, better: str) -> Finding:
    """The log evidence, and how well it is known; `better` says how to know it better."""
    if error is None:
        return Finding(
            "warning",
            EVIDENCE,
            f"{value:.2f}, of one run",
            "take several runs for a standard error",
        )
    level = grade(-error, good=-0.3, warning=-1.0)
    remedy = "" if level == "good" else better
    return Finding(level, EVIDENCE, f"{value:.2f} with a standard error of {error:.2g}", remedy)


def grade(value: float, *, good: float, warning: float) -> Level:
    """`good` from one value upwards, `warning` from a lower one, else `bad`."""
    return "good" if value >= good else "warning" if value >= warning else "bad"
