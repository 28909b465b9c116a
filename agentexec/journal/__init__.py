"""The journal: recorded steps of a task's runs, from which another worker resumes after a crash."""
