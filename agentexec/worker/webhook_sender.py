"""Webhook sender: delivers the messages about ended tasks from the record, in threads of the maintenance process.

Any host sends any message. A message whose sender dies is sent again: receivers drop what they have by its `webhook-id`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine

from agentexec.arguments.checks import check_storable
from agentexec.arguments.webhooks import check_url, shown_url
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.outage import Outage, repeat
from agentexec.webhooks.messages import next_delay
from agentexec.webhooks.record import (
    DELIVERED,
    FAILED,
    PENDING,
    DueMessage,
    claim_due,
    give_up_url,
    note_outcome,
)
from agentexec.webhooks.request import Answer, DeliveryError, ForbiddenAddressError, post
from agentexec.webhooks.signature import signature_headers

log = logging.getLogger("agentexec.webhooks")

LOOK_SECONDS = 30.0
"""Longest time between two looks at the record. Maintenance tells as soon as a message is due."""

STOP_SECONDS = 5.0
"""Seconds that requests under way get when the process stops."""

THREADS = 16
"""Requests at the same time in one process."""

GONE = 410
USER_AGENT = "agentexec-webhooks"


class WebhookSender:
    """Sends the messages that are due.

    Threads: `start` runs a thread that does the work, with a pool of threads for the requests.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._outage = Outage(log)
        self._stop = threading.Event()
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentexec-webhooks", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its requests, or leave it behind if they take long: their messages are sent again."""
        self._stop.set()
        self._told.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def tell(self) -> None:
        """Tell the thread that messages may be due."""
        self._told.set()

    def run_once(self) -> int:
        """Send what is due, up to `THREADS` messages, and return their number. Raises UnavailableError."""
        messages = claim_due(self._engine, utc_now(), THREADS)
        if messages:
            with ThreadPoolExecutor(len(messages), thread_name_prefix="agentexec-webhook") as threads:
                list(threads.map(self._send, messages))
        return len(messages)

    def _run(self) -> None:
        def turn() -> float:
            if not self.run_once():
                self._told.wait(LOOK_SECONDS)
                self._told.clear()
            return 0.0

        repeat(
            self._stop,
            turn,
            self._outage,
            away="%s Webhooks wait until it is back.",
            failed="Sending webhooks failed; trying again.",
        )

    def _send(self, message: DueMessage) -> None:
        secrets = self._settings.webhook_secrets
        if not secrets:
            reason = "AGENTEXEC_WEBHOOK_SECRET is not set where the workers run"
            self._failed(message, reason, level=logging.WARNING)
            return
        try:
            answer = self._post(message, secrets)
        except ForbiddenAddressError as error:
            # Repeated like others: whoever forgot the setting has a day to add it.
            reason = f"{error}; AGENTEXEC_WEBHOOK_PRIVATE_ADDRESSES=true allows it"
            self._failed(message, reason, level=logging.WARNING)
        except DeliveryError as error:
            self._failed(message, str(error))
        except Exception as error:  # of a row that somebody else has written
            self._end(message, FAILED, f"cannot be sent: {type(error).__name__}")
        else:
            self._answered(message, answer)

    def _post(self, message: DueMessage, secrets: Sequence[str]) -> Answer:
        body = check_storable("The body", message.body).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            **signature_headers(secrets, f"msg_{message.message_id.hex}", int(time.time()), body),
        }
        allow_private = self._settings.webhook_private_addresses
        return post(check_url("webhook", message.url), headers, body, allow_private=allow_private)

    def _answered(self, message: DueMessage, answer: Answer) -> None:
        if 200 <= answer.status < 300:
            self._end(message, DELIVERED, f"HTTP {answer.status}")
        elif answer.status == GONE:
            self._end(message, FAILED, "HTTP 410: the receiver wants no more messages")
            others = give_up_url(self._engine, message.url, "HTTP 410 to another message", utc_now())
            if others:
                log.warning("Gave up %d further webhook message(s) to %s.", others, shown_url(message.url))
        else:
            what = ": redirects are not followed" if 300 <= answer.status < 400 else ""
            self._failed(message, f"HTTP {answer.status}{what}", answer.retry_after)

    def _failed(
        self, message: DueMessage, reason: str, retry_after: str | None = None, *, level: int = logging.INFO
    ) -> None:
        delay = next_delay(message.attempts, retry_after, random.random())  # noqa: S311 - spreads load, no secret
        if delay is None:
            self._end(message, FAILED, reason)
            return
        log.log(
            level,
            "The webhook of task %s to %s failed (%s); attempt %d starts in %.0f s.",
            message.agent_id,
            shown_url(message.url),
            reason,
            message.attempts + 1,
            delay,
        )
        note_outcome(self._engine, message, PENDING, reason, utc_now(), delay)

    def _end(self, message: DueMessage, state: str, outcome: str) -> None:
        if state == FAILED:
            log.warning(
                "The webhook of task %s to %s was given up after %d attempt(s): %s.",
                message.agent_id,
                shown_url(message.url),
                message.attempts,
                outcome,
            )
        note_outcome(self._engine, message, state, outcome, utc_now())
