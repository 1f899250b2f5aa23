"""What is published from the results: documents, cards, claims, and the shipped adapters themselves."""
