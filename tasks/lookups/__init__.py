"""What rows look up, taken once for a run or a partition: tables, sources, and answers of APIs."""
