"""Telemetry: the names of metrics and traces, and the parts that collect and export them."""
