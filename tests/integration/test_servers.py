"""Each server the other tests stand on answers."""

import redis
import sqlalchemy as sa


def test_the_database_is_empty(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    try:
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1
            assert sa.inspect(connection).get_table_names() == []
    finally:
        engine.dispose()


def test_redis_is_empty(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
        assert client.dbsize() == 0
