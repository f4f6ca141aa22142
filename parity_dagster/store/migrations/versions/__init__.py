"""One module per revision, named `rNNNN_what.py`; a published one is never changed."""
