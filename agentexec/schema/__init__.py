"""The whole schema: every table, the check that a database has them, and the migrations."""
