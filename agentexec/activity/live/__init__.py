"""Live events of running tasks: published by workers, followed by readers."""
