"""The shared words of the product. Pure pydantic: no I/O, and no import of the other packages."""
