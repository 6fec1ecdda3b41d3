"""A server that speaks the OpenAI fine-tuning protocol and really trains: a dry run of the hosted side."""
