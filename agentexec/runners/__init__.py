"""Runners, with which a task runs agents. `base` imports no SDK; `openai` is for the OpenAI Agents SDK."""
