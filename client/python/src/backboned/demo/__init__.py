"""The demo: experience replay on seq-mnist with a network that a server hosts."""
