"""Target `cluster`: runs as Jobs. Only this package talks to an API server; it is imported when it is used."""
