"""How fast the engine is on this machine: `python -m tests.bench.engine` (`make bench`)."""
