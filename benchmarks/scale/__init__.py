"""Work beyond one process, see __main__.py."""
