"""What runs: thin flows that compose tasks."""
