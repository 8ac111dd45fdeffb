"""The client of a service: submits jobs, watches them, and downloads results and models."""
