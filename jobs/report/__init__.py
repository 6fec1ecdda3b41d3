"""Stage kind `report`."""

VERSION = 1
