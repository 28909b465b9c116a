"""Benchmark: `python -m bench` measures agentexec on real servers, each figure next to a floor of the same run."""

import os
import re

# Removed before agentexec reads them: the benchmark measures the defaults, not the settings of a developer's shell. And
# without bytecode files every process would compile its imports, which users do not wait for.
_FOREIGN = re.compile("AGENTEXEC_|(DATABASE|REDIS)_URL$|OPENAI_|PYTHONDONTWRITEBYTECODE$")
for _name in [name for name in os.environ if _FOREIGN.match(name)]:
    del os.environ[_name]
