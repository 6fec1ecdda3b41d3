"""Stage kind `score`."""

VERSION = 2
