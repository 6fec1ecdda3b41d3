"""Text-to-SQL: answers judged by running them, in a sandbox, on databases that tell queries apart."""
