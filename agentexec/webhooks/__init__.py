"""Webhooks: messages about the ends of tasks, signed by the Standard Webhooks scheme and delivered from the record."""
