"""Are bytes UTF-8, and where are they not?"""

from __future__ import annotations


def is_utf8(content: bytes) -> bool:
    """Tell whether bytes are UTF-8; fast where they are ASCII."""
    if content.isascii():
        return True
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def first_bad_byte(content: bytes) -> int:
    """Return the position of the first byte that is not UTF-8; their number if all are."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(content)
