"""The MCP server: assistants look at tasks and, where allowed, act on them; nothing else imports the `mcp` package."""
