"""Stage kind `train`."""
