"""A model of the whole: a network that changes and fails, importers that come, go and are killed, and what must hold.

`world` is the network and its firehose, `project` an installation that imports from it, `moves` what can happen,
`oracle` what must be true after each move, `play` draws the moves of a history from a seed.
"""
