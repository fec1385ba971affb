"""What the errors of an S3 server mean, and what to do about each."""

from __future__ import annotations

import re

from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from tasks.model.classify import classify
from tasks.model.errors import (
    ConfigError,
    CredentialsRejected,
    PipelineError,
    SourceRejected,
    SourceUnavailable,
)

_PLANNED_AGAIN = "run again; it and the other objects of its partition are planned anew"
_EXPIRED = re.compile(r"ExpiredToken|TokenRefreshRequired|RequestExpired")
_REGION = re.compile(
    r"AuthorizationHeaderMalformed|PermanentRedirect|IllegalLocationConstraint|"
    r"redirect without LOCATION|incorrectly configured region"
)
_REFUSED = re.compile(r"AccessDenied|status code: 40[13]\b")
_THROTTLED = re.compile(r"SlowDown|TooManyRequests|RequestLimitExceeded|ServiceUnavailable")
_KEY_OF_REFUSED = re.compile(r'Error parsing Path "(.*?)": ', re.DOTALL)


def meaning(error: BaseException, where: str, key: str | None = None) -> PipelineError:
    """Return the error of ours that an error of the client stands for.

    Args:
        error: What the client raised.
        where: Which source, for the message.
        key: The object that was read; None for a listing.
    """
    if isinstance(error, PipelineError):
        return error
    text = str(error)
    place = where if key is None else f"{where}: object {key}"
    if isinstance(error, InvalidPathError):
        found = _KEY_OF_REFUSED.search(text)
        return SourceRejected(
            f"{where}: a key that cannot be addressed: {found[1] if found else key!r}",
            "rename the object, or begin 'path' with a folder that it is not in",
        )
    if key is not None and isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
        return SourceRejected(f"{place} was deleted after it was listed", _PLANNED_AGAIN)
    if key is not None and isinstance(error, PreconditionError):
        return SourceRejected(f"{place} was overwritten after it was listed", _PLANNED_AGAIN)
    if _EXPIRED.search(text):
        return SourceUnavailable(
            f"{place}: the session token has expired",
            "use a profile or a role in the block, which renews itself, in place of copied keys",
        )
    if _REGION.search(text):
        return ConfigError(
            f"{where}: the bucket is in another region",
            "set region_name in the credentials of the block",
        )
    if "NoSuchBucket" in text:
        return SourceRejected(f"{where}: there is no such bucket", "correct bucket_name")
    refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if refused or _REFUSED.search(text):  # a listing says it in its text only
        remedy = "check the credentials in the block, and what the bucket's policy allows them"
        return CredentialsRejected(f"{place}: access refused", remedy)
    if _THROTTLED.search(text):
        return SourceUnavailable(f"{place}: the server asks for fewer requests")
    return classify(error, place)


CLIENT_ERRORS = (BaseError, OSError)
"""What the client raises."""
