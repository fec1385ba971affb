"""Reads a bounded sample of a source, and proposes a dataset file with everything it was unsure of."""
