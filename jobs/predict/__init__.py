"""Stage kind `predict`."""
