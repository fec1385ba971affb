"""The section of a version in a changelog after Keep a Changelog; needs nothing but Python.

python3 deployments/changelog.py v1.4.0 < CHANGELOG.md
"""

from __future__ import annotations

import re
import sys


def section_of(changelog: str, tag: str) -> str:
    """Return what a changelog says about a version, without its heading.

    Args:
        changelog: The whole text.
        tag: The version, with or without a ``v`` before it.

    Raises:
        ValueError: There is no such section, or nothing in it.
    """
    version = tag.removeprefix("v")
    heading = re.compile(rf"^## \[?{re.escape(version)}\]?(?: .*)?$", re.MULTILINE)
    found = heading.search(changelog)
    if found is None:
        raise ValueError(f"the changelog has no section {version!r}")
    following = re.search(r"^## ", changelog[found.end() :], re.MULTILINE)
    end = found.end() + following.start() if following else len(changelog)
    text = changelog[found.end() : end].strip()
    if not text:
        raise ValueError(f"the changelog says nothing about {version!r}")
    return text


if __name__ == "__main__":
    try:
        sys.stdout.write(section_of(sys.stdin.read(), sys.argv[1]) + "\n")
    except ValueError as error:
        sys.exit(str(error))
