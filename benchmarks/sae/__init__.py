"""Labels of SAE features against descriptions of them."""
