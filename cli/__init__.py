"""The command line ``dpp``."""
