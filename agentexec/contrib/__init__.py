"""Integrations with other software; each needs its library installed."""
