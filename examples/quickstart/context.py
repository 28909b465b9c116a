"""What a research task is given; the web app and the worker share it."""

from pydantic import BaseModel


class ResearchContext(BaseModel):
    company: str
