"""The runner for the OpenAI Agents SDK, and the code that makes its runs durable."""
