"""One step without exchange or cluster."""
