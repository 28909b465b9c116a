"""The runner for the OpenAI Agents SDK, and what makes its runs durable."""
