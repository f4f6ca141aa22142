"""The contenders: what is physically possible, parity, and what else one could use.

Each runs in a process of its own. It is a function that takes the `Task`, prepares whatever is not to be measured, and
returns a function that does the work and says how many records it handled.
"""
