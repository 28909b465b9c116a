"""MCP server over stdio whose tool appends each call to the file given as argument."""

from __future__ import annotations

import sys
from pathlib import Path

from mcp.server import MCPServer

LEDGER = Path(sys.argv[1])

server = MCPServer("archive")


@server.tool()
def look_up(topic: str) -> str:
    """Look a topic up."""
    with LEDGER.open("a") as file:
        file.write(f"{topic}\n")
    return f"{topic}: 42"


if __name__ == "__main__":
    server.run("stdio")
