"""How databases are read: what there is, which ranges of it, and the rows as record batches."""
