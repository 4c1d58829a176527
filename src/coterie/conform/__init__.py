"""The conformance checker: judges any OpenAI-compatible server from outside, by what it answers."""
