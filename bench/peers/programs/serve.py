"""Command `python serve.py PROGRAM`: the client of a queue, under the module's own name, as its workers know its tasks."""

from __future__ import annotations

import importlib
import sys

importlib.import_module(sys.argv[1]).serve()
