"""The three images of a run in a cluster; `python -m images` builds them from this checkout."""
