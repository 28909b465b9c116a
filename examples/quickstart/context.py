"""Context of a research task, shared by the web app and the worker."""

from pydantic import BaseModel


class ResearchContext(BaseModel):
    company: str
