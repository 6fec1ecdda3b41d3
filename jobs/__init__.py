"""The heavy side: what runs inside a pod, and for target local in a subprocess."""
