"""The HTTP edge: the application, one module per group of routes, and the server process."""
