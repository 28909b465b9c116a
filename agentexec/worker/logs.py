"""The worker's log: one line per event, with the process and the task that it comes from, as text or JSON."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from agentexec.redaction import redact
from agentexec.telemetry.current import CURRENT_ATTEMPT
from agentexec.worker.printed_lines import PrintedLines, real_stream

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

OURS = "agentexec"
"""Name of our loggers' parent."""

CHATTY = ("httpx", "botocore", "aiobotocore")
"""Loggers of libraries that write a line for each request or connection at the level INFO."""

MAX_DEPTH = 6
"""Depth up to which the values that a line carries in `extra` are kept as they are."""

BIDI = {0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
"""Characters that change the direction of writing, or break lines unnoticed by a log collector."""

CONTROLS = dict.fromkeys(
    {*range(0x20), *range(0x7F, 0xA0), *BIDI} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}"
)
"""Control characters and their replacement. Errors of tasks contain foreign texts, which could rewrite the terminal."""

STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that each log record has; others come from the `extra` of a line."""


class LogSettings(Protocol):
    """Settings of the log."""

    @property
    def log_level(self) -> str:
        """Level of our lines."""

    @property
    def log_format(self) -> str:
        """Text or JSON."""

    @property
    def secrets(self) -> list[str]:
        """Texts that must not be shown."""


class RedactingFormatter(logging.Formatter):
    """Formatter that removes secrets and control characters, also from tracebacks.

    Times are in UTC: the user's module may change the time zone of worker processes, as Django does.

    Args:
        settings: Settings of the log.
        *arguments: Those of `logging.Formatter`.
    """

    converter = time.gmtime

    def __init__(self, settings: LogSettings, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._settings = settings

    def format(self, record: logging.LogRecord) -> str:
        return _clean(super().format(record), self._settings.secrets)


class TextFormatter(RedactingFormatter):
    """Formatter of lines for people: time, level, process and pid, the running task if there is one, and the message.

    Args:
        process: Name of the process.
        settings: Settings of the log.
    """

    def __init__(self, process: str, settings: LogSettings) -> None:
        super().__init__(
            settings,
            f"%(asctime)s %(levelname)-7s {process}[%(process)d]%(origin)s: %(message)s",
            TIME_FORMAT,
        )

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging gives it
        attempt = CURRENT_ATTEMPT.get()
        origin = "" if _is_ours(record.name) else f" {record.name}"
        if attempt is not None:
            origin = f" task={attempt.task} agent_id={attempt.agent_id} attempt={attempt.attempt}{origin}"
        return super().formatMessage(logging.makeLogRecord({**vars(record), "origin": origin}))


class JsonFormatter(logging.Formatter):
    """Formatter of lines for log collectors: one JSON object a line.

    Its fields are `time`, `level`, `logger`, `process`, `pid`, `message`; inside a task `task`, `agent_id` and `attempt`; for an
    error `error` with its traceback; and what the line carries in `extra`.

    Args:
        process: Name of the process.
        settings: Settings of the log.
    """

    def __init__(self, process: str, settings: LogSettings) -> None:
        super().__init__()
        self._process = process
        self._settings = settings

    def format(self, record: logging.LogRecord) -> str:
        secrets = self._settings.secrets
        line: dict[str, Any] = {
            key: _plain(value, secrets) for key, value in vars(record).items() if key not in STANDARD_FIELDS
        }
        line |= {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "process": self._process,
            "pid": record.process,
            "message": _clean(record.getMessage(), secrets),
        }
        attempt = CURRENT_ATTEMPT.get()
        if attempt is not None:
            line |= {"task": attempt.task, "agent_id": str(attempt.agent_id), "attempt": attempt.attempt}
        if record.exc_info:
            line["error"] = _clean(self.formatException(record.exc_info), secrets)
        elif record.exc_text:
            line["error"] = _clean(record.exc_text, secrets)
        if record.stack_info:
            line["stack"] = _clean(self.formatStack(record.stack_info), secrets)
        return json.dumps(line, ensure_ascii=False)


def _is_ours(logger: str) -> bool:
    return logger == OURS or logger.startswith(f"{OURS}.")


def _clean(text: str, secrets: list[str]) -> str:
    # A lone surrogate cannot be written to a stream.
    return redact(text, secrets).translate(CONTROLS).encode("utf-8", "backslashreplace").decode()


def _plain(value: Any, secrets: list[str], depth: int = MAX_DEPTH) -> Any:
    """Return a value of a line's `extra` as JSON can express it, without secrets."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping) and depth:
        return {_clean(str(key), secrets): _plain(item, secrets, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth:
        return [_plain(item, secrets, depth - 1) for item in value]
    if isinstance(value, float) and value - value == 0:
        return value
    try:
        return _clean(str(value), secrets)
    except Exception as error:  # whatever the object's text raises
        return f"cannot be shown: {type(error).__name__}"


def set_up(process: str, settings: LogSettings, *, handles_tasks: bool = False) -> None:
    """Log to standard error, at the level and in the format of the settings.

    Standard output is written line by line, so that what handlers print shows at once also in a file or pipe, and
    nothing of it is lost when the process is killed.

    Args:
        process: Name of the process.
        settings: Settings of the log.
        handles_tasks: The process runs tasks: the lines of the user's own loggers are written too. Handlers that the
            application has set up stay as they are, but for the format of those that write to the standard streams, if
            JSON is asked for.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    handler = logging.StreamHandler(real_stream(sys.stderr))
    handler.setFormatter(_formatter(process, settings))
    logger = logging.getLogger(OURS)
    logger.setLevel(settings.log_level)
    for former in list(logger.handlers):
        logger.removeHandler(former)
    logger.addHandler(handler)
    logger.propagate = False
    if settings.log_format == "json":
        _write_all_as_json(handler, handles_tasks=handles_tasks)
    if handles_tasks:
        _write_lines_of_others(handler, settings.log_level)


def _formatter(process: str, settings: LogSettings) -> logging.Formatter:
    return (JsonFormatter if settings.log_format == "json" else TextFormatter)(process, settings)


def _write_lines_of_others(handler: logging.Handler, level: str) -> None:
    """Write the lines of all other loggers too, unless the application has decided where they go."""
    root = logging.getLogger()
    if root.handlers:
        return
    root.addHandler(handler)
    if root.level == logging.WARNING:  # the default
        root.setLevel(level)
        for name in CHATTY:
            chatty = logging.getLogger(name)
            if chatty.level == logging.NOTSET and root.level == logging.INFO:
                chatty.setLevel(logging.WARNING)


def _write_all_as_json(handler: logging.Handler, *, handles_tasks: bool) -> None:
    """Write as JSON what else goes to the standard streams: lines of other handlers, warnings, and prints of tasks."""
    logging.lastResort = logging.StreamHandler(real_stream(sys.stderr))
    logging.lastResort.setLevel(logging.WARNING)
    logging.lastResort.setFormatter(handler.formatter)
    logging.captureWarnings(True)
    _write_warnings(handler, to_root=handles_tasks)
    if not handles_tasks:
        return
    known = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for other in [other for logger in known for other in getattr(logger, "handlers", ())]:
        writes_here = type(other) is logging.StreamHandler and other.stream in (sys.stderr, sys.stdout)
        # A formatter of the application's own class may write JSON already.
        if writes_here and type(other.formatter) in (logging.Formatter, type(None)):
            other.setFormatter(handler.formatter)
    if not isinstance(sys.stderr, PrintedLines):
        sys.stdout = PrintedLines(sys.stdout, handler, "stdout", logging.INFO)
        sys.stderr = PrintedLines(sys.stderr, handler, "stderr", logging.WARNING)
    threading.excepthook = _log_thread_error


def _write_warnings(handler: logging.Handler, *, to_root: bool) -> None:
    """Write Python's warnings, which `captureWarnings` drops where the root logger has no handler."""
    warnings = logging.getLogger("py.warnings")
    for former in list(warnings.handlers):
        if isinstance(former.formatter, JsonFormatter):
            warnings.removeHandler(former)
    if not to_root:
        warnings.addHandler(handler)
    warnings.propagate = to_root


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    """Log what ends a thread of the user in one line, where Python prints a traceback."""
    if args.exc_type is not SystemExit and args.exc_value is not None:
        name = args.thread.name if args.thread else "?"
        info = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.getLogger("threading").error("Thread %s ended with an error.", name, exc_info=info)
