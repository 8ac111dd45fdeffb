"""Predicts the speed of a job."""
