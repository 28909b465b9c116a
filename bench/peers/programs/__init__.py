"""One program for each queue: it defines a task that stamps, and serves the comparison's commands as its client."""
