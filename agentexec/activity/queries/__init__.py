"""Read-only queries of the record, for dashboards and commands."""
