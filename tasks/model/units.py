"""Units of measure: exact factors, from the library pint."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint  # takes a third of a second, which only those pay who need it

    return pint.UnitRegistry(non_int_type=Fraction)


@lru_cache(maxsize=256)
def conversion(source: str, target: str) -> tuple[Fraction, Fraction]:
    """Return (factor, offset) such that a value times factor plus offset is in the target unit.

    Raises:
        ValueError: One of the units is unknown, or they measure different things.
    """
    import pint

    registry = _registry()
    try:
        zero = registry.Quantity(Fraction(0), source).to(target).magnitude
        one = registry.Quantity(Fraction(1), source).to(target).magnitude
    except (pint.errors.PintError, AttributeError, TypeError) as error:
        raise ValueError(f"unit: {error}") from None
    return Fraction(one) - Fraction(zero), Fraction(zero)


class Unit(BaseModel):
    """Converts a measure from one unit to another."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, serialize_by_alias=True
    )

    source: str = Field(alias="from", description="Unit in the source, e.g. mi, degF, lb, km/h.")
    to: str = Field(description="Unit in the table, e.g. km, degC, kg.")

    @model_validator(mode="after")
    def _units_measure_the_same(self) -> Unit:
        conversion(self.source, self.to)
        return self
