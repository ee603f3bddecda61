"""`make audit`: the real auditor, asking a database of this test's own in the form of osv.dev."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

WEAKNESS = {
    "id": "TEST-2026-1",
    "summary": "Loading a volume says HTTPError, or that the connection timed out",
    "affected": [{"package": {"name": "nibabel", "ecosystem": "PyPI"}, "ranges": []}],
}


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, dict]], str]]:
    """A function that starts a database which knows of the weaknesses given, by package; returns its address."""
    servers = []

    def start(known: dict[str, dict]) -> str:
        class Database(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                found = [known[asked["package"]["name"]]] if asked["package"]["name"] in known else []
                answer = json.dumps({"vulns": found} if found else {}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_words: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Database))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1/query"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def audit(root: Path, database: str) -> subprocess.CompletedProcess[str]:
    """`bin/audit` with a database in place of the public one."""
    settings = {"PIP_AUDIT_VULNERABILITY_SERVICE": "osv", "PIP_AUDIT_OSV_URL": database}
    return subprocess.run([root / "bin" / "audit"], env=os.environ | settings, capture_output=True, text=True, check=False)


def test_a_known_weakness_of_a_locked_package_fails_and_is_named(root, serve):
    answer = audit(root, serve({"nibabel": WEAKNESS}))
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "TEST-2026-1" in answer.stdout and "nibabel" in answer.stdout


def test_without_a_known_weakness_every_lock_passes(root, serve):
    answer = audit(root, serve({}))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count("No known vulnerabilities found") == 2


def test_a_database_that_does_not_answer_is_said_loudly_and_fails_nothing(root, serve):
    address = serve({})
    gone = address.replace("http://127.0.0.1:", "http://127.0.0.2:")  # nobody listens there
    answer = audit(root, gone)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "SKIPPED, NOTHING WAS AUDITED" in answer.stdout
