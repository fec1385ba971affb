"""What is past its retention: found, shown, and taken away, but never what is still needed."""
