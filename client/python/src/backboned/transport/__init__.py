"""Moves bytes to a server and back."""
