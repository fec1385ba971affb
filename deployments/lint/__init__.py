"""``dpp lint``: what Prefect ignores in silence is said before it reaches a server."""
