"""Stage kind `train`."""

VERSION = 1
