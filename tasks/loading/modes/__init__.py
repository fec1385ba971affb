"""How staged rows meet the rows of the table: a module for each load mode."""
