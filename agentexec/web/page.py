"""Page of the dashboard: the files that `./dev ui dashboard` has built into `static/`."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request, Response

FOLDER = Path(__file__).with_name("static")

KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

HEAD = "<head>"

FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
"""Headers of a file whose name has a hash of its content."""

FRESH = {"Cache-Control": "no-cache"}


class Page:
    """Answers requests for the page and its files.

    Every path that is not one of a file is a view of the page, so that its links can be loaded again.

    Args:
        has_login: Whether the page may ask for a token.
    """

    def __init__(self, *, has_login: bool) -> None:
        self._files = {f"assets/{file.name}": file for file in (FOLDER / "assets").iterdir()}
        self._page = (FOLDER / "index.html").read_text(encoding="utf-8")
        self._login = " data-login" if has_login else ""

    def answer(self, request: Request) -> Response:
        """Return the file or the page of a request."""
        path: str = request.path_params["path"]
        file = self._files.get(path)
        if file is not None:
            return Response(file.read_bytes(), media_type=KINDS.get(file.suffix), headers=FOREVER)
        if path.startswith("assets/"):
            return Response("There is no such file.\n", 404, media_type="text/plain")
        return Response(self._rendered(path), media_type="text/html", headers=FRESH)

    def _rendered(self, path: str) -> str:
        """Return the page, which finds its files and the API by a URL relative to the path that was asked for.

        So it works below any prefix, also behind a proxy that takes one away without telling.
        """
        base = "../" * path.count("/") or "./"
        return self._page.replace(HEAD, f'{HEAD}\n    <base href="{base}"{self._login}>', 1)
