"""Lists of accounts that somebody drops into a folder: which files are lists, what they say, and what becomes of them.

Add here what is about such files. Knows no Dagster and no tables: whoever reads a list says how an account is
registered, queued and resolved.
"""
