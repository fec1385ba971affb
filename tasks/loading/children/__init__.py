"""Child tables in the load transaction: staged beside their parents, published after them."""
