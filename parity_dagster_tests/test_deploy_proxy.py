"""The proxy of deploy/: nobody passes without a password, and the UI does not learn it."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from parity_dagster_tests.end_to_end.test_celery import free_port

pytestmark = [pytest.mark.processes, pytest.mark.long]

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


class _Ui(BaseHTTPRequestHandler):
    """Answers with the headers that reached it."""

    def do_GET(self) -> None:
        body = str(self.headers).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[str]:
    if NGINX is None:
        pytest.skip("NOT TESTED: the proxy, because nginx is not installed")
    ui = ThreadingHTTPServer(("127.0.0.1", 0), _Ui)
    threading.Thread(target=ui.serve_forever, daemon=True).start()
    port = free_port()
    text = CONFIGURATION.read_text()
    for before, after in {
        "server webserver:3000;": f"server 127.0.0.1:{ui.server_port};",
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "/etc/nginx/htpasswd": str(tmp_path / "htpasswd"),
    }.items():
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "htpasswd").write_text("ada:{PLAIN}lovelace\n")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""  # else it becomes somebody who may not read this folder
    (tmp_path / "nginx.conf").write_text(
        f"{user} daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths}\n{text} }}\n"
    )
    with subprocess.Popen([NGINX, "-c", str(tmp_path / "nginx.conf")], stderr=(tmp_path / "log").open("wb")) as process:
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            ui.shutdown()


def answer(url: str, password: str = "", **headers: str) -> tuple[int, str]:
    if password:
        headers["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
    until = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()
        except urllib.error.URLError:  # it has not begun yet
            assert time.monotonic() < until
            time.sleep(0.05)


def test_nobody_passes_without_a_password_and_the_ui_does_not_learn_it(proxy: str) -> None:
    assert answer(proxy)[0] == 401
    assert answer(proxy, "ada:babbage")[0] == 401
    status, headers = answer(proxy, "ada:lovelace")
    assert status == 200
    assert "Authorization" not in headers
    assert "Host: 127.0.0.1" in headers
    _, upgraded = answer(proxy, "ada:lovelace", Upgrade="websocket", Connection="Upgrade")
    assert "Upgrade: websocket" in upgraded
