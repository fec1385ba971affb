"""Runs of many partitions, split into shards that other processes take."""
