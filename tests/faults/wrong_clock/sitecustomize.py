"""Start-up of a Python process on a host whose clock is wrong by CLOCK_AHEAD seconds; found by PYTHONPATH."""

import datetime
import os
import time

AHEAD = float(os.environ.get("CLOCK_AHEAD", "0"))
REAL_TIME, REAL_TIME_NS = time.time, time.time_ns


class WrongDatetime(datetime.datetime):
    """The class `datetime` with a wrong present moment."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(time.time(), tz)


if AHEAD:
    time.time = lambda: REAL_TIME() + AHEAD
    time.time_ns = lambda: REAL_TIME_NS() + int(AHEAD * 1e9)
    datetime.datetime = WrongDatetime
