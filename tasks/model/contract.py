"""What a dataset does when its source, or its table, is no longer as the dataset file says."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, GetJsonSchemaHandler, model_serializer, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tasks.model.columns import Strict

Unknown = Literal["evolve", "freeze", "quarantine", "ignore"]
Reaction = Literal["evolve", "freeze", "quarantine"]


class Contract(Strict):
    """What to do about a column that is unknown, missing, or of another type.

    A single word decides about unknown columns; ``evolve`` as a single word lets types widen too.
    """

    unknown: Unknown = Field(
        "freeze",
        description="A source column that is not declared: evolve adds it to the table, freeze "
        "refuses the partition, quarantine refuses the rows that have it, ignore leaves it out.",
    )
    missing: Reaction = Field(
        "evolve",
        description="A declared column that the source lacks: evolve loads NULL where the column "
        "may be NULL and refuses the partition elsewhere, freeze refuses the partition, quarantine "
        "refuses its rows.",
    )
    changed: Reaction = Field(
        "quarantine",
        description="Values that do not fit the declared type: evolve widens the type (int16, "
        "int32, int64; digits of a decimal), freeze refuses the partition, quarantine refuses the "
        "rows. Of a table whose type is another: evolve widens it, the others refuse.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value not in get_args(Unknown):
            raise ValueError(f"found {value!r}; allowed: {', '.join(get_args(Unknown))}")
        return _of_word(value)

    @model_serializer
    def _to_word(self) -> str | dict[str, str]:
        """Write the word where a word says it all, so that it keeps the hash of its file."""
        fields: dict[str, str] = {
            "unknown": self.unknown,
            "missing": self.missing,
            "changed": self.changed,
        }
        if self == Contract(**_of_word(self.unknown)):
            return self.unknown
        return fields

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Say that a word or a mapping may stand there."""
        mapping = handler.resolve_ref_schema(handler(core_schema))
        word = {"enum": list(get_args(Unknown)), "type": "string"}
        return {"anyOf": [word, mapping], "description": mapping.pop("description")}


def _of_word(word: str) -> dict[str, Any]:
    return {"unknown": word, **({"changed": "evolve"} if word == "evolve" else {})}
