"""The cluster backend: the only package that imports a Kubernetes client, and only when it is used."""
