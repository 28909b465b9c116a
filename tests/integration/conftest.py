from tests.conftest import ALL_SERVERS
from tests.deployment import deploy, running

__all__ = ["deploy", "running"]

PGBOUNCER = ["db/test_pooler.py", "worker/test_pooled_workers.py"]
MARIADB = ["db/test_resets.py", "state/test_mysql_wakeup.py"]

# They need Node and npm, PgBouncer, or MariaDB.
collect_ignore = [] if ALL_SERVERS else ["runners/openai/test_aimock.py", *PGBOUNCER, *MARIADB]
