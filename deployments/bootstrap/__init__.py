"""``dpp bootstrap``: makes a Prefect server what the files of the project say about an environment."""
