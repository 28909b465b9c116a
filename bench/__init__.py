"""The benchmark: `python -m bench` measures agentexec on real servers, each figure beside a floor of the same run."""

import os
import re

# Before agentexec reads them: the defaults are measured, not what a developer has set in the shell. And without
# bytecode files every process would compile what it imports, which is not what users wait for.
_FOREIGN = re.compile("AGENTEXEC_|(DATABASE|REDIS)_URL$|OPENAI_|PYTHONDONTWRITEBYTECODE$")
for _name in [name for name in os.environ if _FOREIGN.match(name)]:
    del os.environ[_name]
