"""The worker daemon: a supervisor, a template process, worker processes and one for maintenance."""
