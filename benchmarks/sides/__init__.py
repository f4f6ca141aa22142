"""The sides that are compared: what is physically possible, parity, and what else one could use.

Each side runs in a process of its own. A side is a function that takes the `Work`, prepares whatever is not to be
measured, and returns a function that does the work and says how many records it handled.
"""
