"""Large float32 products of our own."""
