"""Stage kind `tune`."""
