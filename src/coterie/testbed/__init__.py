"""Tools that put any OpenAI-compatible gateway to the test. Knows no part of the server."""
