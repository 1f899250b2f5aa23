"""How well held-out topics are named."""
