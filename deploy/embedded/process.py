"""What every embedded part needs of the operating system: folders, locks, ports, and children that do not outlive us.

Each check raises ConfigurationError with one line that says what to do, so that a wrong start ends before anything is written.
"""

import ctypes
import errno
import fcntl
import os
import pwd
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ingest.contract.errors import ConfigurationError

# Kafka stops at the first failed write; below this a start would only fail a little later, in a less readable way.
FREE_BYTES_MIN: Final = 256 * 1024 * 1024
_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(signal_number: int = signal.SIGKILL) -> Callable[[], None] | None:
    """Return a `preexec_fn` that makes the kernel signal the child when its parent ends, however that happens.

    Guarantee: on Linux no child outlives a parent that was killed with SIGKILL. Elsewhere None: a child then ends only
    when it is told to, or when it finds its parent gone.
    """
    if sys.platform != "linux":
        return None
    # Loaded before the fork: after it, only async-signal-safe calls are sure to work.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        # The parent may have ended between fork and prctl; then nobody would ever send the signal.
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def ensure_folder(path: Path) -> Path:
    """Create a folder that can be written and has room, and return it as an absolute path.

    Raises:
        ConfigurationError: not a folder, not writable, or less than FREE_BYTES_MIN free.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(folder_fault(path, error)) from None
    free = shutil.disk_usage(path).free
    if free < FREE_BYTES_MIN:
        raise ConfigurationError(
            f"only {free // 1_000_000} MB are free for {path}: free some disk space, or choose another folder with --data"
        )
    return path.resolve()


def folder_fault(path: Path, error: OSError) -> str:
    """Say in one line what keeps a folder from being used, and what to do."""
    if error.errno == errno.ENOSPC:
        return f"the disk of {path} is full: free some space, or choose another folder with --data"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{path} is not a folder: choose another one with --data"
    if error.errno in (errno.EACCES, errno.EPERM) and (owner := _other_owner(path)):
        return f"{path} belongs to user {owner} and cannot be written: start as that user, or choose another folder with --data"
    return f"{path} cannot be written ({error.strerror}): choose another folder with --data"


def _other_owner(path: Path) -> str | None:
    """Return who owns a file or folder; None where that is us, or nobody knows."""
    try:
        owner = path.stat().st_uid
        return None if owner == os.getuid() else pwd.getpwuid(owner).pw_name
    except (OSError, KeyError):
        return None


class FolderLock:
    """One owner a folder, for as long as the process lives: the kernel lets go of the lock even after SIGKILL."""

    def __init__(self, path: Path, *, owner: str) -> None:
        """Take the lock `path`.

        Args:
            path: the lock file; it stays behind and means nothing by itself.
            owner: names what holds it, for the message of the next who comes.

        Raises:
            ConfigurationError: names the process that holds it, or the user it belongs to.
        """
        try:
            self._file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(folder_fault(path, error)) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise ConfigurationError(
                f"{path.parent} is in use by {holder}: stop it, or choose another folder with --data"
            ) from None
        self._file.truncate(0)
        self._file.write(f"{owner} (pid {os.getpid()})\n")
        self._file.flush()

    def release(self) -> None:
        """Let go; safe to repeat."""
        self._file.close()


def require_free_port(host: str, port: int, *, option: str = "--port") -> None:
    """Check that a server can listen at host:port.

    Raises:
        ConfigurationError: the port is taken, not allowed, or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose former connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except socket.gaierror:
            raise ConfigurationError(f"the host {host} is unknown: choose one of this machine with --host") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                fault = f"port {port} of {host} is in use by another program: choose another with {option}"
            elif error.errno == errno.EADDRNOTAVAIL:
                fault = f"{host} is not an address of this machine: choose another with --host"
            else:
                fault = f"cannot listen at {host}:{port} ({error.strerror}): choose another port with {option}"
            raise ConfigurationError(fault) from None


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that was free an instant ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(host: str, port: int, *, timeout_s: float = 0.5) -> bool:
    """Tell whether somebody accepts connections at host:port."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def listens(pid: int, port: int) -> bool:
    """Tell whether a process, or one that it started, listens at a port: whoever answers there may be another program."""
    import psutil

    try:
        process = psutil.Process(pid)
        return any(
            each.status == psutil.CONN_LISTEN and each.laddr.port == port
            for one in (process, *process.children(recursive=True))
            for each in one.net_connections("tcp")
        )
    except psutil.AccessDenied:
        # Nobody tells here: whoever answers is taken for it.
        return True
    except psutil.NoSuchProcess:
        # It has just ended, or one of its children has.
        return False


def cache_folder() -> Path:
    """Return where downloads are kept, apart from any data folder: TOOLLEDGER_CACHE, else XDG's cache folder of the user."""
    chosen = os.environ.get("TOOLLEDGER_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    # An empty HOME would make "~" the root folder.
    home = os.environ.get("HOME") or os.path.expanduser(f"~{_user()}")
    return Path(base) / "toolledger" if base else Path(home) / ".cache" / "toolledger"


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name
