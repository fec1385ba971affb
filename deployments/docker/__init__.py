"""The image, and servers for one machine."""
