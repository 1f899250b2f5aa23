"""How far the default adapter can be trusted."""
