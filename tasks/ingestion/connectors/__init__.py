"""One connector per kind of source."""
