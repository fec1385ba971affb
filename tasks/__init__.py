"""How each stage works: one folder per stage, plain Python around one thin Prefect task per verb."""
