"""What runs a model: load, generate, cancel, unload."""
