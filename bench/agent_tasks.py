"""The benchmark's tasks in a module that loads the Agents SDK too, as that of an application with agents does."""

import agents  # noqa: F401 - what is measured is that it is loaded

from bench.tasks import pool as pool
