"""Ingestion: what a source says, as Parquet in the raw zone, with every row's origin."""
