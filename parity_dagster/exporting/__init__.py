"""Records as files, for other programs: what is written, and that a file is there whole or not at all.

Knows which bytes a format has and where they go; what the records are is asked of `store.records`.
"""
