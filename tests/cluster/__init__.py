"""A real Kubernetes node on this machine, for the tests. See README.md; nothing of the product imports it."""
