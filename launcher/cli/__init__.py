"""The command line: one file per verb. Nothing in here knows more than how to ask and how to show."""
