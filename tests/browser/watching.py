"""Nobody is watched: what a browser asks of other hosts, or complains about on its console, fails the test."""

from playwright.sync_api import BrowserContext, ConsoleMessage, Request, Response, WebError


class Watch:
    """Collects what must not happen in a browser context."""

    def __init__(self, context: BrowserContext, site: str) -> None:
        self.problems: list[str] = []
        self._site = site
        self._refused: set[str] = set()  # pages that answered with an error, as some must
        context.on("request", self._on_request)
        context.on("response", self._on_response)
        context.on("console", self._on_console)
        context.on("weberror", self._on_web_error)

    def _on_request(self, request: Request) -> None:
        if request.url.startswith("http") and not request.url.startswith(f"{self._site}/"):
            self.problems.append(f"Request to another host: {request.url}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400 and response.request.is_navigation_request():
            self._refused.add(response.url)

    def _on_console(self, message: ConsoleMessage) -> None:
        is_known = message.location["url"] in self._refused and "the server responded with a status of" in message.text
        if message.type == "error" and not is_known:
            self.problems.append(f"Console of {message.location['url']}: {message.text}")

    def _on_web_error(self, error: WebError) -> None:
        self.problems.append(f"Script error: {error.error}")
