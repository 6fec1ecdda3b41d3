"""Small pieces of the operating system and of text that every room needs; knows nothing of Tuneyard."""
