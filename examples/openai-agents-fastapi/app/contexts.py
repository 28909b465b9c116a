"""Contexts of the tasks. The web app reads them from here, and so does not import the Agents SDK."""

from pydantic import BaseModel, Field


class ResearchContext(BaseModel):
    """Company to research."""

    company: str = Field(min_length=1, max_length=100)


class ComparisonContext(BaseModel):
    """Company whose brand and market to weigh."""

    company: str = Field(min_length=1, max_length=100)
