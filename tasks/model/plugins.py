"""Connectors of other packages: found by their entry points, loaded when a dataset names one."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CONNECTORS = "dpp.connectors"
"""Group of the entry points: the name is the ``kind``, the object the connector's class."""
OWN_KINDS = ("files", "s3", "rest", "database")
"""Kinds of this project; no package can take their names."""


def plugin_kinds() -> frozenset[str]:
    """Return the kinds of source that other packages bring; none of their code is loaded."""
    return frozenset(point.name for point in _entry_points()).difference(OWN_KINDS)


@cache
def _entry_points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=CONNECTORS))


def load_plugin(kind: str) -> Any:
    """Return the class of a connector.

    Raises:
        ValueError: Two packages bring one, it cannot be imported, or it declares nothing.
    """
    points = [point for point in _entry_points() if point.name == kind]
    if len(points) != 1:
        values = ", ".join(sorted(point.value for point in points)) or "no package"
        raise ValueError(f"kind {kind!r} is brought by {values}; exactly one package must")
    try:
        plugin = points[0].load()
    except Exception as error:  # whatever the package does while it is imported
        raise ValueError(
            f"kind {kind!r}: {points[0].value} cannot be imported: {type(error).__name__}: {error}"
        ) from None
    declaration = getattr(plugin, "declaration", None)
    if not (isinstance(declaration, type) and issubclass(declaration, BaseModel)):
        raise ValueError(  # noqa: TRY004 - pydantic turns it into the mistake of a dataset file
            f"kind {kind!r}: {points[0].value} has no pydantic model 'declaration'"
        )
    return plugin


class PluginSource(BaseModel):
    """A source of a kind that another package brings; that package checks what it declares."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    kind: str = Field(
        description="A kind that an installed package brings.",
        json_schema_extra={"not": {"enum": list(OWN_KINDS)}},
    )

    @property
    def declared(self) -> Any:
        """What the dataset file says, as the connector's own model."""
        return load_plugin(self.kind).declaration.model_validate(self.model_extra)

    @model_validator(mode="after")
    def _connector_accepts_it(self) -> PluginSource:
        try:
            _ = self.declared
        except ValidationError as error:
            raise ValueError(
                "; ".join(
                    f"{'.'.join(map(str, detail['loc'])) or 'source'}: {detail['msg']}"
                    for detail in error.errors(include_input=False)
                )
            ) from None
        return self
