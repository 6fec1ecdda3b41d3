"""Stage kind `train`."""

VERSION = 2
