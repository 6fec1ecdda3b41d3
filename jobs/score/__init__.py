"""Stage kind `score`."""
