"""Metrics, logs, and the numbers behind both."""
