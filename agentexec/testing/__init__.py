"""What helps to test software that is built on agentexec."""
