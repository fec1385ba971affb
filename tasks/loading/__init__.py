"""Loading: clean rows become visible in the warehouse, exactly once, together with their ledger row."""
