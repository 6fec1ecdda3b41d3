"""Stage kind `tune`."""

VERSION = 2
