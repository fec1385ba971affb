"""Objects that land in a bucket: what the notifications say, which dataset takes them, who is told."""
