"""`python -m parity_dagster.sample_network`: serve a sample network as a process of its own."""

from parity_dagster.sample_network.command import main

if __name__ == "__main__":
    main()
