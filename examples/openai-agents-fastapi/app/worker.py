"""Everything that workers run: `agentexec worker app.worker` or `python -m app.worker`."""

from .chat import answer_question
from .comparison import ComparisonPipeline
from .contexts import ComparisonContext, ResearchContext
from .pool import pool
from .research import research_company

__all__ = [
    "ComparisonContext",
    "ComparisonPipeline",
    "ResearchContext",
    "answer_question",
    "pool",
    "research_company",
]

if __name__ == "__main__":
    pool.run()
