"""One throwaway project of one contestant, and what /proc says of its processes."""
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid

import contestants

TICK = os.sysconf("SC_CLK_TCK")


class Box:
    """One throwaway project: a directory, an environment, an events file, and a
    tag in the environment by which every process it ever started is found again."""

    def __init__(self, work, settings):
        self.work, self.set = work, settings
        self.dir = tempfile.mkdtemp(prefix="lb-", dir=settings.tmp)
        self.events = os.path.join(self.dir, "events")
        self.go = os.path.join(self.dir, "go")
        open(self.events, "w").close()
        self.tag = "BENCH_TAG=" + uuid.uuid4().hex
        self.env = dict(os.environ, BENCH_EVENTS=self.events, BENCH_GO=self.go, HOME=self.dir,
                        BENCH_TAG=self.tag.split("=")[1])
        self.procs = []

    _port = 21000

    @classmethod
    def next_port(cls):
        """One of ours that nobody listens on."""
        while True:
            cls._port = 21000 + (cls._port + 1 - 21000) % 8000
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try: s.bind(("127.0.0.1", cls._port))
                except OSError: continue
            return cls._port

    # -- processes ---------------------------------------------------------
    def spawn(self, argv, **kw):
        kw.setdefault("stdout", subprocess.DEVNULL)
        kw.setdefault("stderr", subprocess.DEVNULL)
        env = self.env
        if self.procs: env = dict(env, BENCH_UP_PID=str(self.procs[0].pid))
        p = subprocess.Popen(argv, cwd=self.dir, env=env, stdin=subprocess.DEVNULL, start_new_session=True, **kw)
        self.procs.append(p)
        return p

    def tagged(self):
        """{pid: argv0 path} of every live process carrying this box's tag."""
        out, tag = {}, self.tag.encode()
        for d in os.listdir("/proc"):
            if not d.isdigit(): continue
            try:
                with open("/proc/%s/environ" % d, "rb") as f:
                    if tag not in f.read().split(b"\0"): continue
                if state(int(d)) in "ZX": continue
                out[int(d)] = os.readlink("/proc/%s/exe" % d)
            except OSError:
                continue
        return out

    def managers(self):
        """Everything of this box that is not the workload: managers, shells, followers."""
        return [p for p, exe in self.tagged().items() if exe != self.work]

    def find_manager(self, base):
        c = [p for p, exe in self.tagged().items() if os.path.basename(exe) == base]
        return min(c) if c else None

    def read(self, event=None):
        out = []
        with open(self.events) as f:
            for line in f:
                w = line.split()
                if len(w) >= 5 and (event is None or w[0] == event):
                    out.append((w[0], w[1], int(w[2]), int(w[4]), w[5:] or None))
        return out

    def wait(self, event, n, timeout, distinct=True):
        """Wait for n (distinct) services to have written `event`; returns the events or None."""
        end, size = time.monotonic() + timeout, -1
        while time.monotonic() < end:
            s = os.stat(self.events).st_size
            if s != size:
                size = s
                ev = self.read(event)
                if len({e[1] for e in ev} if distinct else ev) >= n: return ev
            time.sleep(0.002)
        return None

    def kill_all(self):
        """SIGKILL, by pid, whatever still carries the tag; managers first so that nothing respawns."""
        for _ in range(8):
            left = self.tagged()
            if not left: break
            for p in sorted(left, key=lambda p: left[p] == self.work):
                try: os.kill(p, signal.SIGKILL)
                except ProcessLookupError: pass
            for p in self.procs: p.poll()
            time.sleep(0.05)
        for p in self.procs:
            try: p.wait(2)
            except subprocess.TimeoutExpired: pass

    def forget(self):
        """Drop the events so far; who writes them appends."""
        os.truncate(self.events, 0)

    def close(self):
        self.kill_all()
        shutil.rmtree(self.dir, ignore_errors=True)


def state(pid):
    try:
        with open("/proc/%d/stat" % pid) as f: return f.read().rsplit(")", 1)[1].split()[0]
    except OSError: return "X"


def alive(pid): return state(pid) not in "ZX"


def ended(pids, timeout):
    """When the last of these processes ended, in ns; None if one is still there after timeout seconds."""
    waiting, poll = set(), select.poll()
    try:
        for pid in pids:
            try: fd = os.pidfd_open(pid)
            except ProcessLookupError: continue
            waiting.add(fd)
            poll.register(fd, select.POLLIN)
        end, last = time.monotonic() + timeout, now()
        while waiting:
            for fd, _ in poll.poll(max(0, 1000 * (end - time.monotonic()))):
                last = now()
                poll.unregister(fd); os.close(fd); waiting.discard(fd)
            if waiting and time.monotonic() > end: return None
        return last
    finally:
        for fd in waiting: os.close(fd)


def cpu(pids):
    """CPU seconds of these processes and of the children they have reaped."""
    t = 0
    for p in pids:
        try:
            with open("/proc/%d/stat" % p) as f: w = f.read().rsplit(")", 1)[1].split()
            t += sum(int(x) for x in w[11:15])
        except OSError: pass
    return t / TICK


def ran_ns(pids):
    """CPU time to the nanosecond, of these processes' own threads only (for idle figures)."""
    t = 0
    for p in pids:
        try:
            for th in os.listdir("/proc/%d/task" % p):
                with open("/proc/%d/task/%s/schedstat" % (p, th)) as f: t += int(f.read().split()[0])
        except OSError: pass
    return t


def status_kb(pids, key, file="status"):
    t = 0
    for p in pids:
        try:
            with open("/proc/%d/%s" % (p, file)) as f:
                for line in f:
                    if line.startswith(key + ":"): t += int(line.split()[1]); break
        except OSError: pass
    return t


def switches(pids):
    t = 0
    for p in pids:
        try:
            for th in os.listdir("/proc/%d/task" % p):
                with open("/proc/%d/task/%s/status" % (p, th)) as f:
                    t += sum(int(l.split()[1]) for l in f if "ctxt_switches" in l)
        except OSError: pass
    return t


def now(): return time.monotonic_ns()


class Run:
    """One contestant over one box, brought up with a set of services."""

    def __init__(self, bench, name, svcs, stdout=None):
        self.box = Box(bench.work, bench.args)
        self.c = contestants.ALL[name](self.box, bench.find)
        self.svcs, self.stdout, self.up = svcs, stdout, None
        self.c.config(svcs)

    def __enter__(self): return self
    def __exit__(self, *a): self.box.close()

    def start(self, argv=None):
        argv = argv or self.c.up()
        self.t0 = now()
        self.up = self.box.spawn(argv, stdout=self.stdout or subprocess.DEVNULL)
        self.up_end = None
        self.watch = threading.Thread(target=self._watch, args=(self.up.pid,), daemon=True)
        self.watch.start()
        return self

    def _watch(self, pid): self.up_end = ended([pid], 120)

    def returned(self, timeout):
        """When the `up` command ended, in ns; None if it has not after timeout seconds."""
        self.watch.join(timeout)
        return self.up_end

    def warm(self):
        """What the contestant has of a daemon runs before the work comes."""
        for argv in self.c.warm(): self.box.spawn(argv).wait(30)
        self.box.forget()
        return self

    def timed(self, argv, n, out=subprocess.DEVNULL):
        """argv run n times, timed by the workload binary: {"rc", "ms": […], "cpu_ms": […]}."""
        figures = os.path.join(self.box.dir, "figures")
        subprocess.run([self.box.work, "time", figures, str(n), *argv], cwd=self.box.dir, stdin=subprocess.DEVNULL, stdout=out,
                       stderr=subprocess.DEVNULL, env=dict(self.box.env, BENCH_UP_PID=str(self.up.pid if self.up else 0)), check=True)
        with open(figures) as f: return json.load(f)

    def daemon(self): return self.up.pid if self.c.foreground else self.c.daemon_pid(self.up.pid)

    def stop(self):
        """Start stopping; returns the process to wait for."""
        argv = self.c.down()
        if argv: return self.box.spawn(argv)
        os.kill(self.up.pid, signal.SIGTERM)
        return self.up
