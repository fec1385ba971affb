"""Prefect blocks: credentials and connections. Nothing else opens a connection or reads a secret."""
