"""Runners: what a task uses to run an agent. `base` knows no SDK; `openai` is the one for the OpenAI Agents SDK."""
