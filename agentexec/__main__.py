"""`python -m agentexec` is the `agentexec` command."""

from agentexec.cli.app import main

if __name__ == "__main__":
    main()
