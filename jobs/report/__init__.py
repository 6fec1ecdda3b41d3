"""Stage kind `report`."""

VERSION = 2
