"""Scans: an agent looks at large images, which are kept in the payload store.

agentexec worker worker
agentexec enqueue read_scan @scan.json
"""

from __future__ import annotations

import os
from uuid import UUID

from agents import Agent, ToolOutputImage, function_tool
from pydantic import BaseModel

import agentexec as ax

MODEL = os.environ.get("AGENT_MODEL", "gpt-4o-mini")

pool = ax.Pool()


class Scan(BaseModel):
    question: str
    image: str
    """The scan as a data URL: data:image/png;base64,…"""


class Answer(BaseModel):
    text: str
    image: str


@pool.task("read_scan", retries=2)
async def read_scan(agent_id: UUID, context: Scan) -> Answer:
    @function_tool
    def enlarge(part: str) -> ToolOutputImage:
        """Return a part of the scan, larger."""
        return ToolOutputImage(image_url=context.image)  # an image library would cut the part out

    agent = Agent(name="Reader", instructions="Answer from the scan.", tools=[enlarge], model=MODEL)
    message = {
        "role": "user",
        "content": [
            {"type": "input_text", "text": context.question},
            {"type": "input_image", "image_url": context.image, "detail": "auto"},
        ],
    }
    result = await ax.OpenAIRunner(agent_id).run(agent, input=[message])
    return Answer(text=result.final_output, image=context.image)
