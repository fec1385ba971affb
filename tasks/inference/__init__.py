"""A first dataset file out of a sample of a source."""
