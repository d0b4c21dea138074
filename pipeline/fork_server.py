"""A process that has imported what workers need, and of which each worker of a local cluster is a copy.

A worker started afresh spends two seconds of a core on imports and compiled kernels; a copy has them at once. The
server runs no thread, holds no data, and ends with the job. multiprocessing keeps one such server for a whole program;
this one is our own, under a name of its own, so that nobody else's processes become copies of it.
"""

import io
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import context, forkserver, popen_forkserver, popen_spawn_posix, reduction, spawn, util
from multiprocessing.process import BaseProcess, current_process
from typing import Any, Final

import dask

from pipeline import scratch
from pipeline.processes import COPIES_WORKERS, deaf_to_sigint

logger = logging.getLogger(__name__)

METHOD: Final = "kmeans-dask-copies"
SETTING: Final = "distributed.worker.multiprocessing-method"
# What must be set before a worker's process begins: with Arrow's own allocator each thread keeps what it once had.
ENVIRONMENT: Final = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
_DASKS_OWN: Final = {"MALLOC_TRIM_THRESHOLD_": 65536, "PYTHONHASHSEED": 6640}
# Threads of libraries would be missing in a copy.
_NO_THREADS: Final = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


@contextmanager
def held(preload: str = "pipeline.preloaded") -> Iterator[dict[str, str]]:
    """Keep the server running within the block, and give the Dask settings that let it start workers.

    preload: the module that it imports, by the first who holds it; until that is done a new worker waits. Where copies
    of a process are not safe, or the server cannot be started, there is none, and workers start afresh. For the
    moment of its start, some hundredths of a second, this process has the server's environment.
    """
    settings: dict[str, str] = {}
    with ExitStack() as stack:
        if COPIES_WORKERS:
            try:
                stack.enter_context(_server.held(preload))
                settings[SETTING] = METHOD
            except OSError as error:
                logger.info("workers start one by one (%s)", error)
        yield settings


class _Server(forkserver.ForkServer):
    """The server, started by the first of its holders and ended by the last."""

    _forkserver_pid: int | None
    _forkserver_address: str | None

    def __init__(self) -> None:
        self._inherited: tuple[ExitStack, ...] = ()
        self._folder = ExitStack()
        self.forget()

    def forget(self) -> None:
        """Know of no server, as a process does that has just been forked: the server is its parent's.

        The parent's folder is not let go of: that would remove it.
        """
        super().__init__()
        self._inherited = (*self._inherited, self._folder)
        self._counting = threading.Lock()
        self._n_holders = 0
        self._folder = ExitStack()
        self._ended = threading.Event()

    @contextmanager
    def held(self, preload: str) -> Iterator[None]:
        """Keep the server running within the block."""
        with self._counting:
            if self._n_holders == 0:
                self._begin(preload)
            self._n_holders += 1
        try:
            yield
        finally:
            with self._counting:
                self._n_holders -= 1
                if self._n_holders == 0:
                    self._end()

    @property
    def is_running(self) -> bool:
        """Whether the server can be asked for a copy."""
        pid = self._forkserver_pid
        try:
            return pid is not None and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:  # it has ended, and somebody else has waited for it
            return False

    def ensure_running(self) -> None:
        """Refuse to start it again where its environment is not set: whoever asks starts a process afresh."""
        if not self.is_running:
            raise OSError("the fork server has ended")

    def _begin(self, preload: str) -> None:
        """Start the server, its socket in a folder that only this user may enter."""
        self.set_forkserver_preload([preload])
        with ExitStack() as stack:
            folder = stack.enter_context(scratch.folder(None))
            begun = Future[None]()
            self._ended = threading.Event()
            threading.Thread(
                target=self._keep, args=(folder, begun, self._ended), name="fork server", daemon=True
            ).start()
            begun.result()
            self._folder = stack.pop_all()

    def _keep(self, folder: str, begun: "Future[None]", ended: threading.Event) -> None:
        """Start the server on a thread that stays: the kernel ends a process with the thread that started it."""
        try:
            variables = {**_wished(), **_NO_THREADS, **_path()}
            with deaf_to_sigint(), _temporary_files_in(folder), _environment(variables):
                super().ensure_running()
        except BaseException as error:  # for the thread that waits
            begun.set_exception(error)
            return
        begun.set_result(None)
        ended.wait()

    def _end(self) -> None:
        """End the server at once; the kernel ends whatever worker is left."""
        with self._folder:
            if self._forkserver_pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(self._forkserver_pid, signal.SIGKILL)
                try:
                    self._stop()
                except (
                    ChildProcessError,
                    FileNotFoundError,
                ):  # others have waited for it, or swept its folder
                    self._forkserver_pid = self._forkserver_address = None
            self._ended.set()


_server = _Server()
os.register_at_fork(after_in_child=_server.forget)


class _Copy(popen_forkserver.Popen):
    """A running copy of our server; as its base class, which knows multiprocessing's own server alone."""

    def _launch(self, process: Any) -> None:
        data = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(spawn.get_preparation_data(process.name), data)
            reduction.dump(process, data)
        finally:
            context.set_spawning_popen(None)
        self.sentinel, pipe = _server.connect_to_new_process(self._fds)
        self.finalizer = util.Finalize(self, util.close_fds, (os.dup(pipe), self.sentinel))
        with open(pipe, "wb", closefd=True) as file:
            file.write(data.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


class _Process(BaseProcess):
    _start_method = "spawn"  # of the processes that it starts itself

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - multiprocessing's name
        """Start a process: a copy of our server, or afresh where that has ended."""
        if _server.is_running:
            with suppress(OSError, EOFError):  # it ended just now
                return _Copy(process)
        return popen_spawn_posix.Popen(process)


class _Context(context.BaseContext):
    _name = METHOD
    Process = _Process


context._concrete_contexts[METHOD] = _Context()  # where Dask looks its setting up


def _wished() -> dict[str, str]:
    """Return the variables that Dask would set for a worker before it starts; the user's own win."""
    configured = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    wished = {**_DASKS_OWN, **ENVIRONMENT, **configured}
    return {name: os.environ.get(name, str(value)) for name, value in wished.items() if value is not None}


def _path() -> dict[str, str]:
    """Return variables by which a new interpreter imports from where this one does, and not from the directory."""
    path: list[str] = spawn.get_preparation_data("")["sys_path"]
    return {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


@contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Have multiprocessing make its temporary files there: its own folder would stay where a process just ends."""
    config = current_process()._config
    before = config.get("tempdir")
    config["tempdir"] = folder
    try:
        yield
    finally:
        config["tempdir"] = before


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for processes that are started within the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
