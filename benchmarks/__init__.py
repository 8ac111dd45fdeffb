"""Timings of distbp beside its peers: the same nets, batches, samples and updates, in one run."""
