"""`tetrad status --format prometheus` and `openmetrics`, read by the programs that are for them."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import subprocess
import threading
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.daemons import TIMEOUT_SECONDS, until
from tests.support.system_programs import output_of, require

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

CONTENT_TYPES = {
    "prometheus": "text/plain; version=0.0.4",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
}


def metrics(daemon: Daemon, style: str = "prometheus") -> str:
    """Return the metrics of a daemon."""
    return daemon.tetrad("status", "--format", style).out


@contextlib.contextmanager
def serving(log: pathlib.Path, program: str, *arguments: str) -> Iterator[str]:
    """Run a program that writes its free port to its log; return the URL of its root."""
    require(program)
    command = [program, *arguments, "--web.listen-address=127.0.0.1:0"]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            found = until(
                lambda: re.findall(r'"Listening on" address=(127\.0\.0\.1:\d+)', log.read_text()),
                f"the port of {program}",
            )
            yield f"http://{found[0]}"
        finally:
            process.terminate()
            process.wait(TIMEOUT_SECONDS)


def fetched(url: str) -> str:
    """Return a document."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - http
        text: str = answer.read().decode()
        return text


def test_promtool_accepts_the_format_of_prometheus(daemon: MakeDaemon) -> None:
    """It reads and lints the metrics of a daemon, and those without one."""
    served = daemon()
    output_of("promtool", "check", "metrics", script=metrics(served))
    served.stop()
    output_of("promtool", "check", "metrics", script=metrics(served))


def test_the_textfile_collector_accepts_the_format_of_prometheus(
    daemon: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """node_exporter exports every sample of the file, and reports no error."""
    served = daemon(limits={"clients": 77})
    folder = tmp_path / "textfile"
    folder.mkdir()
    (folder / "tetrad.prom").write_text(metrics(served))
    arguments = ("--collector.disable-defaults", "--collector.textfile")
    where = f"--collector.textfile.directory={folder}"
    log = tmp_path / "exporter"
    with serving(log, "prometheus-node-exporter", *arguments, where) as url:
        lines = fetched(f"{url}/metrics").splitlines()
    assert "node_textfile_scrape_error 0" in lines
    assert "tetrad_clients_limit 77" in lines
    ours = [line for line in metrics(served).splitlines() if not line.startswith("#")]
    theirs = {line.partition(" ")[0] for line in lines}
    assert {line.partition(" ")[0] for line in ours} <= theirs


class Exporter(http.server.BaseHTTPRequestHandler):
    """Serves the metrics in the format that the path names."""

    texts: dict[str, str]

    def do_GET(self) -> None:
        """Send the metrics."""
        style = self.path.strip("/")
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPES[style])
        self.end_headers()
        self.wfile.write(self.texts[style].encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def exporter(texts: dict[str, str]) -> Iterator[str]:
    """Serve metrics over HTTP; return the address."""
    handler = type("TestedExporter", (Exporter,), {"texts": texts})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def query(url: str, expression: str) -> list[Any]:
    """Return the results of a query of Prometheus."""
    where = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    result: list[Any] = json.loads(fetched(where))["data"]["result"]
    return result


def test_prometheus_scrapes_both_formats(daemon: MakeDaemon, tmp_path: pathlib.Path) -> None:
    """It stores the same values of both."""
    served = daemon(limits={"clients": 77})
    texts = {style: metrics(served, style) for style in CONTENT_TYPES}
    samples = [line for line in texts["prometheus"].splitlines() if not line.startswith("#")]
    with exporter(texts) as address:
        jobs = [
            {
                "job_name": style,
                "metrics_path": f"/{style}",
                "static_configs": [{"targets": [address]}],
            }
            for style in CONTENT_TYPES
        ]
        settings = {"global": {"scrape_interval": "500ms"}, "scrape_configs": jobs}
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings))
        arguments = (
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
        )
        log = tmp_path / "log"
        with serving(log, "prometheus", *arguments) as url:
            until(lambda: "Server is ready" in log.read_text(), "a server that is ready")
            until(lambda: len(query(url, "tetrad_clients_limit == 77")) == 2, "both scrapes")
            assert [float(one["value"][1]) for one in query(url, "up")] == [1, 1]
            for style in CONTENT_TYPES:
                stored = query(url, f'{{__name__=~"tetrad_.+", job="{style}"}}')
                assert len(stored) == len(samples)
