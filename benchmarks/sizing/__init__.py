"""`python -m benchmarks.sizing`: what an import of 10,000, a million and forty million accounts takes, simulated."""
