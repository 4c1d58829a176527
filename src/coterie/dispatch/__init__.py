"""Which provider serves a request, and when."""
