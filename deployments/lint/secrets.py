"""Secrets in plain text: Prefect stores what a deployment says, for everybody who may read it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deployments.lint.findings import keys, values
from tasks.documents import Location

_SECRET_NAME = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|api[-_]?key|access[-_]?key|private[-_]?key"
    r"|privacy[-_]?key|encryption[-_]?key|auth[-_]?string|connection[-_]?url|\bdsn\b",
    re.IGNORECASE,
)
_NAMES_A_PLACE = re.compile(r"(_|-)(name|block|file|path|arn|ref)$|secretKeyRef", re.IGNORECASE)
_SECRET_VALUES = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a URL with a password": re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@{]*:[^/\s@{]+@", re.I),
    "a token of GitHub": re.compile(r"\b(gh[pousr]_\w{36,}|github_pat_\w{22,})\b"),
    "a token of Slack": re.compile(r"\bxox[abeoprs]-[\w-]{10,}|hooks\.slack\.com/services/T\w+"),
    "a key of Prefect Cloud": re.compile(r"\bpn[ub]_\w{20,}\b"),
    "a JSON web token": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+"),
}
_VARIABLE = re.compile(r"\{\{\s*\$(\w+)\s*\}\}")


def plain_secrets(node: object, location: Location = ()) -> Iterator[tuple[Location, str]]:
    """Yield what looks like a secret below a node, with its place; never the value itself."""
    named = {
        place
        for place, name in keys(node, location)
        if _SECRET_NAME.search(name) and not _NAMES_A_PLACE.search(name)
    }
    for place, text in values(node, location):
        what = next((what for what, form in _SECRET_VALUES.items() if form.search(text)), None)
        variable = next((v for v in _VARIABLE.findall(text) if _SECRET_NAME.search(v)), None)
        if what:
            yield place, f"looks like {what}, in plain text"
        elif variable:
            yield place, f"the value of {variable} would be stored in plain text"
        elif text and any(place[: len(each)] == each for each in named):
            yield place, "looks like a secret, by its name; it would be stored in plain text"
