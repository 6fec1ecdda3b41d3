"""Stage kind `prepare`."""
