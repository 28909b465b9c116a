from tests.conftest import ALL_SERVERS
from tests.deployment import deploy

__all__ = ["deploy"]

# They need Node and npm.
collect_ignore = [] if ALL_SERVERS else ["test_front_ends.py"]
