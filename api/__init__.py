"""HTTP: what the service says to the world. Knows core; never loads a model."""
