"""A JupyterLab server and a headless Chromium, started once, for tests that use the course as a person does."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Every cell stays in the page, also off screen; nothing asks the network for news or updates.
LAB_SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"},
    "@jupyterlab/extensionmanager-extension:plugin": {"enabled": False},
}


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its folder of notebooks, and where it listens."""

    folder: Path
    port: int
    token: str

    def url(self, notebook: str) -> str:
        return f"http://127.0.0.1:{self.port}/lab/tree/{notebook}?token={self.token}&reset"

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api?token={self.token}", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quiet_home(folder: Path) -> dict[str, str]:
    """Environment variables that keep the server's settings, and only those of this test, inside `folder`."""
    settings = folder / "config" / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(LAB_SETTINGS), encoding="utf-8")
    places = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
    jupyter = {f"JUPYTER_{name}": str(folder / place) for name, place in places.items()}
    lab = {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {**kept, **jupyter, **lab, "KDLIB_DATA": os.environ.get("KDLIB_DATA", str(ROOT / "data"))}


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser; without one the test is skipped."""
    if CHROMIUM is None:
        pytest.skip("no Chromium found: install it (Debian: apt-get install chromium) or set CHROMIUM to its path")
    return CHROMIUM


@pytest.fixture(scope="session")
def lab(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on a copy of the notebooks, so that the repository is not touched."""
    home = tmp_path_factory.mktemp("lab")
    server = Lab(home / "notebooks", free_port(), secrets.token_hex(16))
    shutil.copytree(ROOT / "notebooks", server.folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    if (students := ROOT / "data" / "students").exists():
        shutil.copytree(students, home / "data" / "students")
    options = {
        "port": server.port,
        "root_dir": server.folder,
        "port_retries": 0,
        "open_browser": False,
        "allow_root": True,
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--ServerApp.{name}={value}" for name, value in options.items())]
    log = home / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, f"--IdentityProvider.token={server.token}"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=quiet_home(home),
        )
        try:
            deadline = time.monotonic() + 90
            while not server.answers():
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.3)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=30)
