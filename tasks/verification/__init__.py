"""Proofs that put the stages to use: the source read again, and work of the past done again."""
