"""Tasks: how rows become prompts, how answers are read, what scores them."""
