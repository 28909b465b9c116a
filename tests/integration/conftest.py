from tests.deployment import deploy, running

__all__ = ["deploy", "running"]
