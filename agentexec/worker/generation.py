"""Generations: loads of the user's module. While new code is rolled out there are several, each with its own processes."""

from __future__ import annotations

import logging
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from agentexec.arguments.served_queues import parse_queues
from agentexec.worker.channel import Channel
from agentexec.worker.child_processes import ChildProcess
from agentexec.worker.target import Target
from agentexec.worker.template_handle import TemplateHandle

log = logging.getLogger("agentexec.supervisor")

TEMPLATE_EXIT_WAIT = 2.0
"""Seconds that the template gets to end, where it runs no exit handlers."""

EXIT_HANDLERS_WAIT = 10.0
"""Seconds that the template gets to end with the exit handlers of the user's module."""


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """Options of the template process, see `TemplateHandle`."""

    target: Target
    overrides: dict[str, str] = field(default_factory=dict)
    run_atexit: bool = True
    show_traceback: bool = False
    reports: int = -1
    nohup: bool = field(default_factory=lambda: signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)

    @property
    def exit_wait(self) -> float:
        """Seconds that the template gets to end."""
        return EXIT_HANDLERS_WAIT if self.run_atexit else TEMPLATE_EXIT_WAIT


class Generation:
    """One load of the user's module: the template that has it, and the maintenance process forked from there."""

    def __init__(self, template: TemplateHandle, maintenance: ChildProcess) -> None:
        self.template = template
        self.maintenance = maintenance
        self.loaded = False
        """True once the template has the module."""
        self.settings: dict[str, Any] = {}
        """Settings as the module has left them."""
        self.can_fork = True
        self.release = ""
        """Release of agentexec that the template has loaded."""
        self.kill_at: float | None = None
        """Moment from which the template, which is told to end, is killed."""

    @property
    def queues(self) -> list[str]:
        """Queues that its worker processes serve; none before it is loaded."""
        if queues := self.settings.get("queues"):
            return [queue.name for queue in parse_queues(queues)]
        return [self.settings["queue_name"]] if "queue_name" in self.settings else []


class Generations:
    """The generation in service, the one that is to follow, and those whose tasks run on.

    Threads: only the supervisor's loop calls it.
    """

    def __init__(self, options: TemplateOptions, board: int, selector: selectors.BaseSelector) -> None:
        self._options = options
        self._board = board
        self._selector = selector
        self.current: Generation | None = None
        """The one in service; None while its template is dead."""
        self.incoming: Generation | None = None
        """The one that is being loaded, to replace the current one."""
        self.retiring: list[Generation] = []
        """Those that were replaced."""
        self.former_queues: set[str] = set()
        """Queues of those that were replaced, whose tasks may still have something to be done."""

    def __iter__(self) -> Iterator[Generation]:
        both = [generation for generation in (self.current, self.incoming) if generation is not None]
        return iter([*both, *self.retiring])

    def start(self, maintenance: ChildProcess) -> Generation:
        """Start a template, whose maintenance process has a place. Raises OSError."""
        options = self._options
        template = TemplateHandle(
            options.target,
            self._board,
            options.overrides,
            run_atexit=options.run_atexit,
            show_traceback=options.show_traceback,
            reports=options.reports,
            nohup=options.nohup,
        )
        for channel in template.channels:
            self._selector.register(channel, selectors.EVENT_READ)
        return Generation(template, maintenance)

    def of(self, channel: Channel) -> Generation | None:
        """Return the generation to which a channel belongs."""
        return next((each for each in self if channel in each.template.channels), None)

    def promote(self, incoming: Generation) -> None:
        """Put the incoming generation into service. The workers of the old one go on until they are told to end."""
        if self.current is not None:
            self.current.template.maintenance.send({"stop": True})
            self.retiring.append(self.current)
            self.former_queues.update(self.current.queues)
        self.current, self.incoming = incoming, None

    def remove(self, generation: Generation) -> None:
        """Forget a generation whose template has ended, or is to be killed."""
        if generation not in list(self):
            return
        if generation is self.current:
            self.current = None
        elif generation is self.incoming:
            self.incoming = None
        elif generation in self.retiring:
            self.retiring.remove(generation)
        self.unregister(*generation.template.channels)
        generation.template.kill()

    def unregister(self, *channels: Channel) -> None:
        """Stop listening to channels."""
        for channel in channels:
            if channel in self._selector.get_map():
                self._selector.unregister(channel)

    def end_unused(self, is_used: Callable[[Generation], bool]) -> None:
        """End the templates of retiring generations without processes, step by step and without waiting."""
        for generation in list(self.retiring):
            template, now = generation.template, time.monotonic()
            if generation.kill_at is None and not is_used(generation):
                # A template that is still loading the module would not listen; it is killed.
                generation.kill_at = now + (self._options.exit_wait if generation.loaded else 0.0)
                template.control.send({"stop": True})
            if generation.kill_at is not None and (
                template.exit_code() is not None or now >= generation.kill_at
            ):
                self.remove(generation)

    def end_all(self) -> None:
        """End the processes of all generations in order, once there are no worker processes."""
        if self.incoming is not None:
            self.remove(self.incoming)
        loaded = [generation for generation in self if generation.loaded]
        for generation in loaded:
            generation.template.maintenance.send({"stop": True})
        for generation in loaded:
            generation.maintenance.wait()
            generation.template.control.send({"stop": True})
        for generation in loaded:
            generation.template.wait(self._options.exit_wait)

    def kill_all(self) -> None:
        """Kill what is left."""
        for generation in list(self):
            generation.maintenance.kill()
            generation.template.kill()
