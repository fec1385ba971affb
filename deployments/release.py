"""May a tag become a release, and what is said about it? Needs nothing but Python.

python3 deployments/release.py v1.4.0    # in the folder of the project; writes the changelog's section
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_TAG = re.compile(r"v\d+\.\d+\.\d+(-(a|b|rc)\.?\d+)?")


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


def check_version(project: str, tag: str) -> None:
    """Compare a tag with the version that the project has.

    Args:
        project: Text of pyproject.toml.
        tag: E.g. ``v1.4.0``, or ``v1.4.0-rc1``, which Python spells ``1.4.0rc1``.

    Raises:
        ValueError: They differ, or the tag has another form: the hyphen keeps a candidate in staging.
    """
    if not _TAG.fullmatch(tag):
        raise ValueError(f"the tag is {tag!r}; a release is tagged v1.4.0, a candidate v1.4.0-rc1")
    version = tomllib.loads(project)["project"]["version"]
    if _spelled_as_python(version) != _spelled_as_python(tag.removeprefix("v")):
        raise ValueError(f"the tag is {tag!r}, the version in pyproject.toml {version!r}")


def _spelled_as_python(version: str) -> str:
    return re.sub(r"[-_.]?(a|b|rc)[-_.]?(?=\d+$)", r"\1", version)


if __name__ == "__main__":
    try:
        check_version(Path("pyproject.toml").read_text(), sys.argv[1])
        sys.stdout.write(section_of(Path("CHANGELOG.md").read_text(), sys.argv[1]) + "\n")
    except ValueError as error:
        sys.exit(str(error))
