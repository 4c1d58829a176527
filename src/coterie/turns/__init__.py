"""Turns: responses with what came before them, while they run, and after."""
