"""Changes of the record: the only modules that write a task's status."""
