"""Data: sources (formats) -> table -> preprocessing -> shards -> batches."""
