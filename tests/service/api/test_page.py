"""What docs/api.md and the README tell people to type: it works as it stands there, and no path is missing."""

import re
import shlex
from pathlib import Path

from headrace.service.api.route_table import ROUTES, V1
from tests.project.repository import ROOT
from tests.service.api.client import Client, Reply
from tests.service.api.conftest import ON
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation

PAGES = (ROOT / "docs" / "api.md", ROOT / "README.md")


def commands(page: Path) -> list[list[str]]:
    """The words of every curl command."""
    blocks = re.findall(r"^```\n(curl .*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


def sent(api: Client, words: list[str]) -> Reply:
    """What curl would do with these words."""
    headers: dict[str, str] = {}
    body, url = b"", ""
    rest = iter(words[1:])
    for word in rest:
        match word:
            case "-H":
                name, _, value = next(rest).partition(": ")
                headers[name] = value
            case "-d":
                body = next(rest).encode()
            case "-i":
                pass
            case _:
                assert word.startswith("http://127.0.0.1:8080/"), word
                url = word.removeprefix("http://127.0.0.1:8080")
    return api.ask("POST" if body else "GET", url, body, headers)


async def test_every_command_of_the_pages_works(station: MakeStation, tmp_path: Path) -> None:
    [app] = [
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        if "async def fulfil" in block
    ]
    (tmp_path / "app.py").write_text(app)
    place = station(Backend("embedded"), tmp_path / "app.py", api__port=0)
    service = await place.spawn(env=ON).ready()
    api = Client(service.api_url)
    found = [words for page in PAGES for words in commands(page)]
    assert len(found) >= 4
    for words in found:
        if "-N" in words:
            continue  # the stream has no end: test_stream.py
        reply = sent(api, words)
        assert reply.status in {200, 201, 202}, (words, reply.body)
    assert service.stop() == 0


def test_every_path_is_on_the_page() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    missing = [route.template for route in ROUTES if not any(told(route.method, route.template, row) for row in rows)]
    assert missing == []


def told(method: str, template: str, row: str) -> bool:
    """A row names the path whole, or its last part behind a path that begins like it."""
    path = template.removeprefix(f"{V1}/")
    names = re.findall(r"`([^`]+)`", row.split("|")[1])
    first = names[0].partition(" ")
    if first[0] != method:
        return False
    paths = {first[2], *names[1:]}
    whole, last = path, path.rpartition("/")
    return whole in paths or (last[2] in paths and first[2].rpartition("/")[0] == last[0])
