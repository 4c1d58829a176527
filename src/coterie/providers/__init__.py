"""The Provider protocol and its kinds."""
