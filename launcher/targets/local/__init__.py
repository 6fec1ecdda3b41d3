"""Target `local`: a detached conductor on this machine, stages as its subprocesses, artifacts in a store."""
