from tests.deployment import deploy

__all__ = ["deploy"]
