"""The live monitor: what it reads, how it looks, and what its keys do."""
