from tests.conftest import ALL_SERVERS
from tests.deployment import deploy, running

__all__ = ["deploy", "running"]

# It needs Node and npm.
collect_ignore = [] if ALL_SERVERS else ["runners/openai/test_aimock.py"]
