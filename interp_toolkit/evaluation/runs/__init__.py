"""Whole measurements: data in, a result file out, each resumable; run by `interp-toolkit evaluate NAME`."""
