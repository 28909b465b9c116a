"""Tasks of the benchmark in a module that also loads the Agents SDK, like the module of an application with agents."""

import agents  # noqa: F401 - loading it is what is measured

from bench.tasks import pool as pool
