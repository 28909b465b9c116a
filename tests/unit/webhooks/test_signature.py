"""Receivers verify our messages with the libraries of the Standard Webhooks scheme."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from agentexec.arguments.webhooks import parse_secret
from agentexec.config import Settings
from agentexec.webhooks.signature import signature_headers

OLD, NEW = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def verify(secret: str, body: bytes, headers: dict[str, str]) -> Any:
    return Webhook(secret).verify(body, headers)


def test_a_receiver_with_the_secret_verifies_a_message() -> None:
    body = json.dumps({"type": "task.completed", "text": "ä"}).encode()
    headers = signature_headers([NEW], "msg_1", int(time.time()), body)
    assert verify(NEW, body, headers) == json.loads(body)
    for changed in (body + b" ", b"{}"):
        with pytest.raises(WebhookVerificationError):
            verify(NEW, changed, headers)
    with pytest.raises(WebhookVerificationError):
        verify(OLD, body, headers)
    with pytest.raises(WebhookVerificationError):
        verify(NEW, body, {**headers, "webhook-id": "msg_2"})


def test_a_message_has_a_signature_by_each_secret() -> None:
    headers = signature_headers([NEW, OLD], "msg_1", int(time.time()), b"{}")
    assert verify(OLD, b"{}", headers) == verify(NEW, b"{}", headers) == {}


@pytest.mark.parametrize("secret", ["", "hunter2", "whsec_", "whsec_hunter2", "whsec_aHVudGVyMg==", NEW[6:]])
def test_a_text_that_is_not_a_secret_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match="each secret must be whsec_ and the base64") as caught:
        parse_secret(secret)
    assert not secret or secret not in str(caught.value).replace("whsec_ and", "").replace("whsec_$", "")


def test_settings_take_several_secrets_and_hide_them() -> None:
    settings = Settings(webhook_secret=f"{NEW}, {OLD}")  # type: ignore[arg-type]
    assert settings.webhook_secrets == [NEW, OLD]
    assert NEW in settings.secrets
    assert NEW not in repr(settings) and NEW not in settings.model_dump_json()
