"""Integrations with web frameworks; each needs its library installed."""
