"""The web app: the application's endpoints, agentexec's API for the page, and the page itself.

Run it with `uvicorn app.main:app --timeout-graceful-shutdown 5`.
"""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from agentexec.web import Caller, add_error_handlers, dashboard, router

from .views import router as views

PAGE = Path(__file__).parents[1] / "ui" / "dist"


def caller() -> Caller:
    """Return who asks and what they may do. Replace this by your login: here everyone may do everything."""
    return Caller(name="the page", act=True)


app = FastAPI(title="Research")
app.include_router(views)
app.include_router(router(caller=caller), prefix="/api")  # tasks, live events, approvals: what the page shows
add_error_handlers(app)  # 404 for an unknown task, 422 for a bad cursor, …
app.mount("/agentexec", dashboard(caller=caller))  # for those who run the application


@app.get("/agentexec", include_in_schema=False)
def to_dashboard() -> RedirectResponse:
    """Add the slash that people leave out: the page below answers to every other path, also to this one."""
    return RedirectResponse("agentexec/")


if PAGE.is_dir():  # built by `npm run build` in ui/
    app.mount("/", StaticFiles(directory=PAGE, html=True))
