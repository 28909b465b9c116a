"""Schema: all tables, the check that a database has them, and the migrations."""
