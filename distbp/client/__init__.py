"""Talking to a service: submit jobs, watch them, fetch what they leave."""
