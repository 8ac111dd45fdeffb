"""How fast a job will be."""
