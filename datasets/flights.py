"""What flights.yaml cannot say in SQL: a pandera schema, and a function that adds a column."""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pa

MILES = [0, 500, 1000, 2000]
BANDS = ["short", "medium", "long", "very long"]


class FlightsSchema(pa.DataFrameModel):
    """Clean rows of flights; a row that breaks a check goes to quarantine."""

    @pa.dataframe_check(name="possible_speed")
    @classmethod
    def possible_speed(cls, flights: pd.DataFrame) -> pd.Series:
        """No airliner flies faster than 800 miles an hour, or slower than 30."""
        speed = flights["distance"] / (flights["air_time"] / 60)
        return speed.isna() | speed.between(30, 800)


def add_distance_band(flights: pd.DataFrame) -> pd.DataFrame:
    """Add the band of the distance, as the analysts cut it."""
    edges = [*MILES, float("inf")]
    band = pd.cut(flights["distance"].astype("int64"), edges, labels=BANDS, right=False)
    return flights.assign(distance_band=band.astype(str))
