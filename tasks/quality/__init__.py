"""Learned checks: what is usual in the history of a dataset, and what is not. Pure functions."""
