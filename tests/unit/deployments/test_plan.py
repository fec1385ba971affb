"""What is to be done, from what is declared and what is there."""

from __future__ import annotations

import pytest

from deployments.bootstrap.plan import Action, Present, Step, plan

THERE = Present("1", {"limit": 5, "active": True, "of_the_server": 3})


@pytest.mark.parametrize(
    ("declared", "present", "made", "expected"),
    [
        ({"a": {"limit": 5}}, {}, {}, [(Action.CREATE, ())]),
        ({"a": {"limit": 5}}, {"a": THERE}, {}, [(Action.KEEP, ())]),
        ({"a": {"limit": 6, "active": True}}, {"a": THERE}, {}, [(Action.CHANGE, ("limit",))]),
        ({"a": {"limit": 5, "new": None}}, {"a": THERE}, {}, [(Action.KEEP, ())]),
        ({}, {"a": THERE}, {"a": "1"}, [(Action.REMOVE, ())]),
        # Made by somebody else: never made by us, or made anew since.
        ({}, {"a": THERE}, {}, []),
        ({}, {"a": THERE}, {"a": "2"}, []),
        ({}, {}, {"a": "1"}, []),
    ],
)
def test_plan(declared, present, made, expected) -> None:  # type: ignore[no-untyped-def]
    steps = [*plan("limit", declared, present, made, prune=True)]
    assert steps == [Step("limit", "a", action, keys) for action, keys in expected]


def test_without_prune_nothing_is_removed() -> None:
    (step,) = plan("limit", {}, {"a": THERE}, {"a": "1"}, prune=False)
    assert step.action is Action.LEAVE
