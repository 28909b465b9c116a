"""The journal: what a task's runs have done, recorded so that another worker can go on where the last one died."""
