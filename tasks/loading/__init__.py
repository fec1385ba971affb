"""Loading: clean rows become visible in the warehouse, exactly once, with their ledger row."""
