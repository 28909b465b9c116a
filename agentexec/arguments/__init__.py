"""Checks of the values that users pass to public functions, made before anything is written."""
