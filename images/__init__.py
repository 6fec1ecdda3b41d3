"""The three images of a run in a cluster, built from this checkout: `python -m images`."""
