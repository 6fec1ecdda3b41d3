"""Stage kind `report`."""
