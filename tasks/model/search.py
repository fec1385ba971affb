"""``load.index``: how the rows of a table can be found by what their texts say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from tasks.model.columns import Identifier, Strict


def _short_forms_too(schema: dict[str, Any]) -> None:
    """Let editors know the short forms: a list of columns, and a weight alone."""
    each = schema.pop("additionalProperties")
    names = schema.pop("propertyNames", {})
    weight = {"enum": ["A", "B", "C", "D"]}
    del schema["type"]
    schema["anyOf"] = [
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {
            "type": "object",
            "minProperties": schema.pop("minProperties"),
            "propertyNames": names,
            "additionalProperties": {"anyOf": [weight, each]},
        },
    ]


Weight = Literal["A", "B", "C", "D"]
Language = Annotated[str, Field(pattern=r"^[a-z_]+$")]


class SearchedColumn(Strict):
    """One column of the full text: what its words count, and the language they are in."""

    weight: Weight = Field("D", description="A counts most, D least.")
    language: Language | None = Field(
        None, description="Text search configuration of this column; that of the index without it."
    )


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a column is named twice")
    return names


Columns = Annotated[tuple[Identifier, ...], AfterValidator(_each_once)]


class SearchIndex(Strict):
    """Full text, misspelt words, and whole values."""

    search: dict[Identifier, SearchedColumn] = Field(
        min_length=1,
        json_schema_extra=_short_forms_too,
        description="Columns whose words are found: a list, or a weight per column, "
        "e.g. {title: A, body: {weight: C, language: german}}.",
    )
    language: Language = Field(
        "simple", description="Text search configuration: simple, english, german, …"
    )
    fuzzy: Columns | None = Field(
        None,
        description="Columns in which misspelt words are found; without it all of search, [] none.",
    )
    exact: Columns = Field(
        (), description="Columns whose whole value may be typed; such rows come first."
    )

    @field_validator("search", mode="before")
    @classmethod
    def _short_forms(cls, given: object) -> object:
        if isinstance(given, list | tuple):
            if len(set(map(str, given))) < len(given):
                raise ValueError("a column is named twice")
            return {name: {} for name in given}
        if isinstance(given, dict):
            return {
                name: {"weight": column} if isinstance(column, str) else column
                for name, column in given.items()
            }
        return given

    @property
    def fuzzy_columns(self) -> tuple[str, ...]:
        """Columns that the trigram index is on."""
        return tuple(self.search) if self.fuzzy is None else self.fuzzy

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is searched in one way or another, each once."""
        return tuple(dict.fromkeys([*self.search, *self.fuzzy_columns, *self.exact]))
