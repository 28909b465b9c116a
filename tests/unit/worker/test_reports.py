"""Reports reach the supervisor whole, and what could not be told is told later."""

from __future__ import annotations

import os
import socket
import threading

from agentexec.telemetry.meter import Meter
from agentexec.telemetry.names import COUNTED, TASKS
from agentexec.worker.reports import Reporter, ReportSocket
from tests.waiting import patient


def test_reports_of_several_processes_arrive_whole_and_garbage_is_skipped() -> None:
    reports = ReportSocket()
    for process in ("a", "b"):
        Reporter(os.dup(reports.descriptor), process, lambda: {"claim": 1.0}).report()
    sender = socket.socket(fileno=os.dup(reports.descriptor))
    for garbage in (b"{", b"[]", b"\xff", b"[" * 50_000):
        sender.send(garbage)
    sender.send(b'{"process": "c"}')
    assert [reports.receive() for _ in range(3)] == [
        {"claim": 1.0, "process": "a", "counted": []},
        {"claim": 1.0, "process": "b", "counted": []},
        {"process": "c"},
    ]
    sender.close()
    reports.close()


def test_closing_ends_the_thread_that_receives() -> None:
    reports = ReportSocket()
    received: list[object] = []
    thread = threading.Thread(target=lambda: received.append(reports.receive()))
    thread.start()
    reports.close()
    thread.join(patient(5))
    assert received == [None]


def test_what_a_full_socket_did_not_take_is_counted_in_the_next_report() -> None:
    reports, meter = ReportSocket(), Meter()
    sender = socket.socket(fileno=os.dup(reports.descriptor))
    sender.setblocking(False)
    sent = 0
    try:
        while True:
            sender.send(b"{}")
            sent += 1
    except BlockingIOError:
        pass
    meter.add(TASKS, "research", "complete")
    reporter = Reporter(sender.detach(), "a", dict, meter)
    reporter.report()
    meter.add(TASKS, "research", "complete")
    for _ in range(sent):
        reports.receive()
    reporter.report()
    report = reports.receive()
    assert report and report["counted"] == [[TASKS.name, ["research", "complete"], [2]]]
    reports.close()
    assert TASKS.name in COUNTED
