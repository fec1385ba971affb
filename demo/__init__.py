"""The demo: a year of real flights, served the way they would come in real life."""
