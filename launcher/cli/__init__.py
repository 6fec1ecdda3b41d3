"""The command line: one file per verb. Options and output only; the work is done in the rooms below."""
