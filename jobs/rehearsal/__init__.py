"""A server with the OpenAI fine-tuning protocol that trains real adapters: a dry run of the hosted side."""
