"""Helpers for other libraries; each needs its library installed."""
