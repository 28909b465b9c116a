"""The pool, which all tasks of the application belong to."""

import os

import agentexec as ax

from .db import engine

MODEL = os.environ.get("AGENT_MODEL", "gpt-4o-mini")

pool = ax.Pool(engine=engine)
