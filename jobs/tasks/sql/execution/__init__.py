"""Execution accuracy of text-to-SQL: answers run in a sandbox, on databases that tell queries apart."""
