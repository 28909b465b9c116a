pytest_plugins = ["agentexec.testing.pytest_plugin"]
