"""Model files: the catalogue, and what lies in the store."""
