"""Ticks: the moments at which a schedule enqueues a task, by a cron expression in a time zone or at an interval."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from agentexec.arguments.checks import check_number, check_text, shown
from agentexec.errors import UsageError

MAX_SPEC = 200
"""Maximum characters of a cron expression."""

MAX_ZONE = 64
"""Maximum characters of a time zone's name."""

EVERY = "@every "

MIN_INTERVAL, MAX_INTERVAL = 1.0, 366 * 86_400.0
"""Shortest and longest interval in seconds."""

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""Names of cron for expressions."""


def check_spec(spec: object) -> str:
    """Return the text of a cron expression or interval. Raises UsageError."""
    if isinstance(spec, timedelta):
        seconds = check_number(
            "cron=, as an interval in seconds,",
            spec.total_seconds(),
            minimum=MIN_INTERVAL,
            maximum=MAX_INTERVAL,
        )
        return f"{EVERY}{int(seconds) if seconds == int(seconds) else seconds}"
    if not isinstance(spec, str):
        raise UsageError(
            f'cron= must be a cron expression like "*/5 * * * *" or a timedelta, not {shown(spec)}.'
        )
    text = check_text("cron=", " ".join(spec.split()), MAX_SPEC)
    text = MACROS.get(text.lower(), text)
    try:
        CronSim(text, datetime.now(UTC))
    except CronSimError as error:
        raise UsageError(
            f'{shown(spec)} is not a cron expression ({error}); write minute, hour, day, month and weekday, like "0 8 * * 1-5".'
        ) from None
    return text


def check_zone(zone: object) -> str:
    """Return the name of a time zone. Raises UsageError for one that this system does not know."""
    name = check_text("timezone=", zone, MAX_ZONE)
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"There is no time zone {shown(name)}; write a name like Europe/Berlin, and install the package tzdata if this "
            "system has no time zones."
        ) from None
    return name


def ticks_after(spec: str, zone: str, moment: datetime) -> Iterator[datetime]:
    """Return the ticks after a moment, in UTC. An interval is counted from the moment."""
    if spec.startswith(EVERY):
        interval = timedelta(seconds=float(spec.removeprefix(EVERY)))
        while True:
            moment += interval
            yield moment
    for tick in CronSim(spec, moment.astimezone(ZoneInfo(zone))):
        yield tick.astimezone(UTC)


def next_tick(spec: str, zone: str, moment: datetime) -> datetime | None:
    """Return the first tick after a moment, or None if there is none within the next decades."""
    return next(ticks_after(spec, zone, moment), None)


def last_tick(spec: str, zone: str, first: datetime, moment: datetime) -> datetime:
    """Return the last tick up to a moment, where `first` is a tick before it."""
    if spec.startswith(EVERY):
        interval = float(spec.removeprefix(EVERY))
        return first + timedelta(seconds=(moment - first).total_seconds() // interval * interval)
    # Backwards from just after the moment: there may be millions of ticks since the first one.
    after = (moment + timedelta(seconds=1)).replace(microsecond=0).astimezone(ZoneInfo(zone))
    found = next(CronSim(spec, after, reverse=True), None)
    return first if found is None else max(first, found.astimezone(UTC))


def missed_ticks(spec: str, zone: str, first: datetime, moment: datetime, limit: int) -> list[datetime]:
    """Return the ticks from `first`, which is one, up to a moment: at most `limit` of them, the oldest."""
    later = (tick for tick in ticks_after(spec, zone, first))
    found = [first]
    for tick in islice(later, limit - 1):
        if tick > moment:
            break
        found.append(tick)
    return found
