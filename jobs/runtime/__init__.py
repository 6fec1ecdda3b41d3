"""What every stage process needs around its work: heartbeats, nodes, pods, threads, JSONL files."""
