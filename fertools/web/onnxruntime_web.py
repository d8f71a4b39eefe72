"""The three files of onnxruntime-web, and where they come from.

They are 14 MB, so fertools' own package does not contain them. They are taken from a folder, or fetched once
by npm; in either case checksums ensure that they are the files that this version was tested with.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fertools.errors import ConfigError, WebError
from fertools.files import replacing_folder

VERSION: Final = "1.30.0"

#: The smallest set that runs our files: WebAssembly with SIMD, without WebGPU. Name -> SHA-256.
FILES: Final = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}

#: Environment variable that names their folder, as ``--onnxruntime-web`` does.
VARIABLE: Final = "FERTOOLS_ONNXRUNTIME_WEB"

#: Seconds that npm may take for the 33 MB of the package.
PATIENCE: Final = 600


def read_files(
    folder: Path | None = None, *, say: Callable[[str], None] = lambda message: None
) -> dict[str, bytes]:
    """Read and check the three files.

    Arguments:
        folder: the npm package onnxruntime-web, its ``dist`` folder, or any folder with the three files. By
            default what ``$FERTOOLS_ONNXRUNTIME_WEB`` names, else the cache, which npm fills if it is empty.
        say: is told of a download.

    Returns:
        Name -> content.

    Raises:
        ConfigError: ``folder`` lacks a file, or has one of another version.
        WebError: there is no npm, or it failed.
    """
    named = folder or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is not None:
        return _checked(named / "dist" if (named / "dist").is_dir() else named)
    cache = _cache()
    try:
        return _checked(cache)
    except ConfigError:
        say(f"fetching onnxruntime-web {VERSION} by npm into {cache} (33 MB, once)")
        _fetch(cache)
        return _checked(cache)


def _checked(folder: Path) -> dict[str, bytes]:
    contents = {}
    for name, digest in FILES.items():
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{folder / name}: {error.strerror}; give the folder of npm's onnxruntime-web {VERSION}"
            ) from error
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            raise ConfigError(f"{folder / name}: not that of onnxruntime-web {VERSION}")
    return contents


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "fertools" / f"onnxruntime-web-{VERSION}"


def _fetch(cache: Path) -> None:
    """Fill the cache by ``npm pack``, which downloads a package without installing or running anything."""
    npm = shutil.which("npm")
    if npm is None:
        raise WebError(
            f"onnxruntime-web {VERSION} is needed, and npm, which would fetch it, is not installed: get the"
            f" package elsewhere and give its folder by --onnxruntime-web or ${VARIABLE}"
        )
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--ignore-scripts", "--loglevel=error"]
        try:
            done = subprocess.run(
                command, cwd=temporary, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise WebError(f"npm did not fetch onnxruntime-web in {PATIENCE} seconds: try again") from error
        archives = [*Path(temporary).glob("*.tgz")]
        if done.returncode or not archives:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise WebError(f"npm cannot fetch onnxruntime-web {VERSION}: {last}")
        try:
            with replacing_folder(cache) as folder, tarfile.open(archives[0]) as archive:
                for name in FILES:
                    member = archive.extractfile(f"package/dist/{name}")
                    if member is not None:
                        (folder / name).write_bytes(member.read())
        except (KeyError, tarfile.TarError) as error:
            raise WebError(f"what npm fetched is not onnxruntime-web {VERSION}: {error}") from error
