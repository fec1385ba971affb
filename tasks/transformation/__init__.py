"""Transformation: raw rows become typed, checked, enriched rows, or go to quarantine with a reason."""
