"""Stage kind `fetch`."""
