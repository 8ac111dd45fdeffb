"""Trained models on disk and in memory."""
