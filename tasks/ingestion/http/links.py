"""Where a server may send us: a redirect or a link to the next page is followed within limits."""

from __future__ import annotations

import httpx

from blocks.http_auth import DEFAULT_PORTS, Origin
from tasks.model.errors import SourceRejected

SHOWN = 60
"""Characters of an address that are shown; never its query."""


def target_of(
    link: str, *, seen_at: httpx.URL, home: Origin, allow_hosts: tuple[str, ...], what: str
) -> httpx.URL:
    """Return the address that a server's answer leads to, if it may be asked.

    Args:
        link: The address as the server wrote it, absolute or relative.
        seen_at: The URL whose answer had the link in it.
        home: The API's own origin.
        allow_hosts: Other hosts that the dataset lists, ``host`` or ``host:port``.
        what: What the link is, for the message: ``the next page``.

    Raises:
        SourceRejected: It leads to another server that is not listed, or is no address to ask.
    """
    try:
        url = seen_at.join(link)
    except (httpx.InvalidURL, ValueError, UnicodeError):
        raise SourceRejected(f"{what} has an address that is no URL") from None
    if url.scheme not in DEFAULT_PORTS or not url.host:
        raise SourceRejected(f"{what} has an address that is not http: {shown(url)}")
    if url.userinfo:
        raise SourceRejected(f"{what} has an address with a user in it: {shown(url)}")
    origin = Origin.of(url)
    if origin == home:
        return url
    listed = str(origin) in allow_hosts or f"{origin.host}:{origin.port}" in allow_hosts
    if not listed:
        raise SourceRejected(
            f"{what} is on another server ({shown(url)}); the credentials are not sent there",
            f"list {origin} under source.allow_hosts if it belongs to the API; "
            "it gets no credentials then either",
        )
    if home.scheme == "https" and url.scheme != "https":
        raise SourceRejected(f"{what} is not encrypted ({shown(url)}), while the API itself is")
    return url


def shown(url: httpx.URL) -> str:
    """Write an address for people, without user, path and query."""
    return f"{url.scheme}://{Origin.of(url)}"[:SHOWN] if url.host else f"{url.scheme}:"
