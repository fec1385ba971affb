"""The contract of a dataset file: one word, or one for each kind of change."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tasks.model.contract import Contract
from tests.integration.loading.support import make_spec


@pytest.mark.parametrize("word", ["evolve", "freeze", "quarantine", "ignore"])
def test_a_word_decides_about_unknown_columns(word: str) -> None:
    contract = make_spec(contract=word).contract
    changed = "evolve" if word == "evolve" else "quarantine"
    assert (contract.unknown, contract.missing, contract.changed) == (word, "evolve", changed)
    assert contract.model_dump() == word
    assert Contract.model_validate(contract.model_dump(mode="json")) == contract


def test_each_kind_of_change_has_a_word_of_its_own() -> None:
    asked = {"unknown": "evolve", "missing": "freeze", "changed": "quarantine"}
    contract = make_spec(contract=asked).contract
    assert contract.model_dump() == asked
    assert make_spec(contract={}).contract == make_spec().contract == Contract()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("evlove", ["evlove", "evolve, freeze"]),
        ({"missing": "ignore"}, ["missing", "'quarantine'"]),
        ({"new": "freeze"}, ["new"]),
    ],
)
def test_another_word_is_refused(wrong: object, words: list[str]) -> None:
    with pytest.raises(ValidationError) as refused:
        make_spec(contract=wrong)
    assert not [word for word in words if word not in str(refused.value)]
