"""Measurements beside raw COPY and beside peers; none of them is a test."""
