"""Webhooks: messages about the ends of tasks, signed by the Standard Webhooks scheme and delivered from the record."""

from agentexec.webhooks.deliveries import (
    WebhookSchema,
    resend,
    resend_failed,
    resend_failed_sync,
    resend_sync,
)
from agentexec.webhooks.deliveries import list_webhooks as list

__all__ = ["WebhookSchema", "list", "resend", "resend_failed", "resend_failed_sync", "resend_sync"]
