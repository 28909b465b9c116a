"""The database of the record: engines, transactions, column types."""
