"""Fork. Each test forks in a process of its own; connections are checked from both sides."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="Windows has no fork")
FORK = ("-W", "ignore::DeprecationWarning")  # 3.12+ warns about fork in a process with threads, which is the point here


def test_child_works_within_a_second_on_a_fresh_loop_and_fresh_resources(child):
    """The child's first call gets a loop and a client of its own; the parent keeps its own."""
    ended = child(
        """
        import asyncio, os, sys, threading, time
        import rowloop.runtime as r
        rt = r.Runtime("mine")
        class Client:
            def __init__(self):
                self.pid = os.getpid()
            async def aclose(self):
                print("closed in", "parent" if self.pid == os.getpid() == parent else "child"
                      if self.pid == os.getpid() else "THE WRONG PROCESS", flush=True)
        async def nop(): return threading.get_ident()
        parent = os.getpid()
        before, loop = rt.enter(Client), rt.loop
        pid = os.fork()
        if pid == 0:
            at = time.monotonic()
            rt.run(nop())
            took = time.monotonic() - at
            after = rt.enter(Client)
            print("child", took < 1, rt.loop is not loop, after is not before, r.run_sync(nop()) > 0, flush=True)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("parent", rt.enter(Client) is before, rt.loop is loop, flush=True)
        """,
        flags=FORK,
    )
    assert sorted(ended.out.splitlines()) == [
        "child True True True True",
        "closed in child",
        "closed in parent",
        "parent True True",
    ]


def test_fork_from_a_coroutine_works_in_child_and_parent(child):
    """After a fork on the loop's own thread the child works, and the parent's coroutine continues."""
    ended = child(
        """
        import asyncio, os, sys, threading
        import rowloop.runtime as r
        async def nop(): return "worked"
        async def fork():
            pid = os.fork()
            if pid == 0:
                print("child", r.run_sync(nop()), flush=True)
                os._exit(0)
            status = await asyncio.to_thread(os.waitpid, pid, 0)
            return status[1]
        print("parent", r.run_sync(fork()), flush=True)
        """,
        flags=FORK,
    )
    assert ended.out == "child worked\nparent 0\n"


def test_fork_works_while_another_thread_holds_the_start_lock(child):
    """A start that had begun in the parent begins again in the child."""
    ended = child(
        """
        import asyncio, os, sys, threading
        import rowloop.runtime as r
        starting, go = threading.Event(), threading.Event()
        parent = os.getpid()
        def factory():
            starting.set()
            if os.getpid() == parent:
                go.wait(10)
            return asyncio.new_event_loop()
        rt = r.Runtime("mine", loop_factory=factory)
        async def nop(): return "worked"
        threads = [threading.Thread(target=lambda: rt.run(nop())) for _ in range(4)]
        for thread in threads: thread.start()
        starting.wait()
        with rt._lock:
            pid = os.fork()
            if pid == 0:
                print("child", rt.run(nop()), flush=True)
                sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        go.set()
        print("parent", rt.run(nop()), flush=True)
        """,
        flags=FORK,
    )
    assert ended.out == "child worked\nparent worked\n"


def test_fork_works_while_another_thread_makes_the_default_runtime(child):
    """A lock that another thread held during the fork does not block the child."""
    ended = child(
        """
        import asyncio, os, sys
        import rowloop.runtime as r
        from rowloop.runtime import shared
        async def nop(): return "worked"
        with shared._lock:
            pid = os.fork()
            if pid == 0:
                print("child", r.run_sync(nop()), flush=True)
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("parent", r.run_sync(nop()), flush=True)
        """,
        flags=FORK,
    )
    assert ended.out == "child worked\nparent worked\n"


def test_work_of_the_parent_is_refused_in_the_child_and_continues_in_the_parent(child):
    """Calls, streams and managers from before the fork end at once in the child, and lose nothing in the parent."""
    ended = child(
        """
        import asyncio, contextlib, gc, os, sys
        import rowloop.runtime as r
        rt = r.Runtime("mine")
        async def numbers():
            try:
                for number in range(6):
                    yield number
            finally:
                print("stream closed in", who, flush=True)
        @contextlib.asynccontextmanager
        async def manager():
            yield
            print("left in", who, flush=True)
        who = "parent"
        call, items, dropped = rt.submit(asyncio.sleep(60)), rt.iterate(numbers(), 2), rt.iterate(numbers(), 1)
        assert next(items) == next(dropped) == 0
        with rt.context(manager()):
            pid = os.fork()
            if pid == 0:
                who = "child"
                for read in (call.result, lambda: list(items)):
                    try:
                        read()
                    except r.RuntimeClosedError as error:
                        print("before the process forked" in str(error), flush=True)
                print(call.cancel(), call.done(), flush=True)
                del items, dropped
                gc.collect()
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            del dropped
        print(call.done(), list(items), flush=True)
        call.cancel()
        """,
        flags=FORK,
    )
    assert ended.out.splitlines()[:3] == ["True", "True", "False True"]
    assert sorted(ended.out.splitlines()[3:]) == [
        "False [1, 2, 3, 4, 5]",
        "left in parent",
        "stream closed in parent",
        "stream closed in parent",
    ]


def test_parents_connections_still_work_and_the_child_neither_writes_nor_closes_them(child):
    """A connection of the parent's loop survives a child that uses its runtime and exits normally."""
    ended = child(
        """
        import asyncio, gc, os, sys, threading
        import rowloop.runtime as r
        received = []
        async def serve(reader, writer):
            while line := await reader.readline():
                received.append(line)
                writer.write(line)
                await writer.drain()
            received.append(b"closed")
            writer.close()
        class Connection:
            async def __aenter__(self):
                self.server = await asyncio.start_server(serve, "127.0.0.1", 0)
                self.reader, self.writer = await asyncio.open_connection(*self.server.sockets[0].getsockname())
                return self
            async def __aexit__(self, *_):
                self.writer.close()
                await self.writer.wait_closed()
                self.server.close()
        async def echo(connection, word):
            connection.writer.write(word + b"\\n")
            return await connection.reader.readline()
        rt = r.default()
        connection = rt.enter(Connection)
        assert rt.run(echo(connection, b"before")) == b"before\\n"
        pid = os.fork()
        if pid == 0:
            del connection
            gc.collect()
            mine = rt.enter(Connection)
            assert rt.run(echo(mine, b"child")) == b"child\\n"
            gc.collect()
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert rt.run(echo(connection, b"after")) == b"after\\n"
        assert received == [b"before\\n", b"after\\n"], received
        print("fine")
        """,
        flags=FORK,
    )
    assert ended.out == "fine\n"


def test_fork_hooks_start_no_thread(child):
    """A child that does not use the runtime has one thread and writes nothing to stderr."""
    ended = child(
        """
        import asyncio, os, sys, threading
        import rowloop.runtime as r
        r.run_sync(asyncio.sleep(0))
        pid = os.fork()
        if pid == 0:
            print(threading.active_count(), len(os.listdir("/proc/self/task")), flush=True)
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """,
        flags=FORK,
    )
    assert ended.out == "1 1\n"


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_subprocesses_of_the_loop_are_unaffected(child, kind):
    """Processes that the loop itself starts work, with fork and without."""
    ended = child(
        f"""
        import asyncio, os, sys, uvloop
        import rowloop.runtime as r
        rt = r.Runtime("mine", loop_factory={kind}.new_event_loop)
        async def run(**options):
            process = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE, **options)
            out, _ = await process.communicate()
            return out.decode().strip()
        print(rt.run(run()), rt.run(run(start_new_session=True)))
        """,
        flags=("-W", "ignore::DeprecationWarning"),
    )
    assert ended.out == "hello hello\n"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing_children_have_runtimes_of_their_own(child, method):
    """Worker processes can use the default runtime, with every start method."""
    ended = child(
        f"""
        import asyncio, multiprocessing as mp, os
        import rowloop.runtime as r
        async def pid():
            await asyncio.sleep(0)
            return os.getpid()
        def work(_):
            return r.run_sync(pid())
        if __name__ == "__main__":
            r.run_sync(pid())
            with mp.get_context({method!r}).Pool(2) as pool:
                print(os.getpid() in pool.map(work, range(4)))
                pool.close()
                pool.join()
        """,
        flags=FORK,
    )
    assert ended.out == "False\n"


def test_preloaded_server_forks_workers_that_serve(child):
    """As with gunicorn's preload: the master has used its runtime, each worker uses its own, the master still works."""
    ended = child(
        """
        import asyncio, os, sys
        import rowloop.runtime as r
        class Client:
            async def aclose(self): pass
        async def handle(n):
            client = r.client(Client)
            await asyncio.sleep(0)
            return os.getpid(), id(asyncio.get_running_loop())
        r.run_sync(handle(0))
        workers = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                assert {r.run_sync(handle(n))[0] for n in range(50)} == {os.getpid()}
                sys.exit(0)
            workers.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in workers] == [0] * 4
        print(r.run_sync(handle(1))[0] == os.getpid())
        """,
        flags=FORK,
    )
    assert ended.out == "True\n"


FORKS = """
import asyncio, os, random, sys, threading, time
import rowloop.runtime as r
rt = r.default()
stop = threading.Event()
async def work(n):
    await asyncio.sleep(random.random() / 1000)
    return n
def load():
    while not stop.is_set():
        assert rt.run(work(7)) == 7
threads = [threading.Thread(target=load) for _ in range(4)]
for thread in threads: thread.start()
failed = 0
for n in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        at = time.monotonic()
        ok = rt.run(work(n)) == n and time.monotonic() - at < 1
        os._exit(0 if ok else 1)
    failed += os.waitpid(pid, 0)[1] != 0
    time.sleep(random.random() / 500)
stop.set()
for thread in threads: thread.join()
print("failed:", failed)
"""


def test_20_forks_under_load_all_work(child):
    """20 forks at random moments while four threads call: every child works, and so does the parent."""
    assert child(f"import sys; sys.argv = ['', '20']\n{FORKS}", flags=FORK).out == "failed: 0\n"


@pytest.mark.stress
def test_200_forks_under_load_all_work(child):
    """The long form."""
    script = f"import sys; sys.argv = ['', '200']\n{FORKS}"
    assert child(script, flags=FORK, seconds=55).out == "failed: 0\n"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="forkserver is the default there, and tested above")
def test_process_pool_workers_can_call_the_runtime(child):
    """The functions of a process pool, which forks by default, can use the runtime."""
    ended = child(
        """
        import asyncio, concurrent.futures
        import rowloop.runtime as r
        async def double(n):
            await asyncio.sleep(0)
            return 2 * n
        def work(n):
            return r.run_sync(double(n))
        if __name__ == "__main__":
            r.run_sync(double(1))
            with concurrent.futures.ProcessPoolExecutor(2) as pool:
                print(list(pool.map(work, range(4))))
        """,
        flags=FORK,
    )
    assert ended.out == "[0, 2, 4, 6]\n"
