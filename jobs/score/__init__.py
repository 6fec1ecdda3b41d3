"""Stage kind `score`."""

VERSION = 1
