"""Where the documentation explains a finding: a page with one anchor for each kind of finding."""

from __future__ import annotations

import functools
import re
from importlib import metadata

PAGE = "reference/findings/"
_BEFORE_A_NAME = (
    "against",
    "constraint",
    "finite",
    "forcing",
    "outlying",
    "single",
    "stuck",
    "unknown function",
)
"""Subjects that a name follows, such as "against climatology"."""
_PLACEHOLDER = re.compile(r"//([^/]*\.)?(example(\.com|\.org|\.net)?|invalid|localhost)([:/]|$)")
"""Hosts that nobody can own (RFC 2606)."""


def finding_name(subject: str) -> str:
    """Return the name of a kind of finding in kebab case, which is its anchor in the documentation.

    It is the subject without the names in it: "R-hat of science parameters" gives `r-hat`,
    "against climatology" gives `against`, and "order of residuals of hare" `order-of-residuals`.

    Args:
        subject: the subject of a finding.

    Returns:
        The name.
    """
    # A mixture puts the name of a model before the subject.
    own = subject.rpartition(": ")[2]
    if " against " in own:
        return "against"
    if " over " in own:
        return "bayes-factor"
    kind, _, rest = own.partition(" of ")
    if rest.startswith("residuals of "):
        kind = f"{kind} of residuals"
    for head in _BEFORE_A_NAME:
        if kind.startswith(f"{head} ") or kind == f"{head}s":
            kind = head
    return re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")


@functools.cache
def documentation() -> str:
    """Return the address of the documentation, empty if the package's metadata hold none.

    An address such as `https://example.org` is a placeholder and counts as none.
    """
    try:
        links = metadata.metadata("bayes-dasl").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return ""
    found = dict(link.split(", ", 1) for link in links if ", " in link)
    address = found.get("Documentation", "")
    return "" if _PLACEHOLDER.search(address) else address.rstrip("/")


def help_address(subject: str) -> str:
    """Return the address of the explanation of a finding, empty if it is not known.

    Args:
        subject: the subject of a finding.

    Returns:
        The address with its anchor.
    """
    return f"{documentation()}/{PAGE}#{finding_name(subject)}" if documentation() else ""
