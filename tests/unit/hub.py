"""A local replacement for the Hugging Face hub that serves one repository, as a model and as a dataset."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LoopbackHub(ThreadingHTTPServer):
    """An HTTP server on 127.0.0.1 that serves the files of `folder` as repository `owner/tiny`.

    Attributes:
        commit: Commit that `main` points to. All commits have the same files.
        wrong_checksums: Names of files for which the hub reports a wrong SHA-256.
        asked: Requested paths, in order.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.commit = COMMIT
        self.wrong_checksums: set[str] = set()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Address of the hub."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def name_of(self, path: Path) -> str:
        """Return the name of a file in the repository, with its folders."""
        return path.relative_to(self.folder).as_posix()

    def sibling(self, path: Path) -> dict[str, object]:
        """Return the hub's description of a file. Weights have a SHA-256, as files in Git LFS have."""
        content = path.read_bytes()
        described: dict[str, object] = {"rfilename": self.name_of(path), "size": len(content)}
        if path.suffix in {".safetensors", ".bin"}:
            checksum = "0" * 64 if self.name_of(path) in self.wrong_checksums else hashlib.sha256(content).hexdigest()
            described["lfs"] = {"sha256": checksum, "size": len(content), "pointerSize": 100}
        return described


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackHub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _answer(self, *, with_body: bool) -> None:
        path, _, query = unquote(self.path).partition("?")
        self.server.asked.append(path)
        about = re.fullmatch(r"/api/(models|datasets)/owner/tiny(?:/(tree|revision)/([^/]+)/?(.*))?", path)
        resolved = re.fullmatch(r"/(?:datasets/)?owner/tiny/resolve/(\w+)/(.+)", path)
        commit = self.server.commit
        if about and about[2] == "tree":
            folder = self.server.folder / about[4]
            listed = self._files() if "recursive=true" in query.lower() else [*folder.glob("*")]
            entries = [self._tree_entry(path) for path in listed if path.is_relative_to(folder)]
            self._send(json.dumps(entries).encode(), with_body=with_body)
        elif about and about[3] and about[3] != "main" and not re.fullmatch("[0-9a-f]{40}", about[3]):
            self._send(b"{}", with_body=with_body, status=404, headers={"X-Error-Code": "RevisionNotFound"})
        elif about:
            commit = commit if about[3] in {None, "main"} else about[3]
            files = [self.server.sibling(file) for file in self._files()]
            info = {"id": "owner/tiny", "modelId": "owner/tiny", "sha": commit, "siblings": files}
            self._send(json.dumps(info).encode(), with_body=with_body)
        elif resolved and (self.server.folder / resolved[2]).is_file():
            content = (self.server.folder / resolved[2]).read_bytes()
            headers = {"X-Repo-Commit": resolved[1], "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            self._send(content, with_body=with_body, headers=headers)
        else:
            code = "EntryNotFound" if resolved else "RepoNotFound"
            self._send(b"{}", with_body=with_body, status=404, headers={"X-Error-Code": code})

    def _files(self) -> list[Path]:
        return sorted(path for path in self.server.folder.rglob("*") if path.is_file())

    def _tree_entry(self, file: Path) -> dict[str, object]:
        if file.is_dir():
            return {"type": "directory", "path": self.server.name_of(file), "size": 0, "oid": "0" * 40}
        described = self.server.sibling(file)
        oid = hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
        entry = {"type": "file", "path": described["rfilename"], "size": described["size"], "oid": oid}
        if lfs := described.get("lfs"):
            entry["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": 100}  # type: ignore[index]
        return entry

    def _send(self, body: bytes, *, with_body: bool, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@contextmanager
def serve(folder: Path) -> Iterator[LoopbackHub]:
    """Serve a folder until the block ends."""
    hub = LoopbackHub(folder)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
