"""The service: an HTTP API, a queue, and the processes that train. Nothing of `distbp` imports it."""
