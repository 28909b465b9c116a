"""Loaded by every process of the host that seems to run on another machine, whose processes nobody here can look up."""

import agentexec.worker.machine as machine

machine._machine = lambda: "far"
