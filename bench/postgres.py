"""Postgres: from asking until it answers its protocol. By hand it is initdb and postgres in their fastest setting that
loses nothing: nothing is synced while the data is made, all of it once at the end, and the server runs with fsync on."""
import glob
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

from box import Box, Run, now


def programs():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda p: int(p.split("/")[4]))
    if not found: raise FileNotFoundError("/usr/lib/postgresql")
    return os.path.dirname(found[-1])


def until_ready(port, timeout=60):
    """When the server took a startup message for an answer of its own, in ns; 57P03 is "still starting"."""
    body = struct.pack("!i", 196608) + b"user\0app\0database\0app\0\0"
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        s = socket.socket()
        s.settimeout(2)
        try:
            s.connect(("127.0.0.1", port))
            s.sendall(struct.pack("!i", len(body) + 4) + body)
            answer = s.recv(4096)
            if answer[:1] == b"R" or answer[:1] == b"E" and b"57P03" not in answer: return now()
        except OSError: pass
        finally: s.close()
        time.sleep(0.001)
    raise TimeoutError("postgres on port %d" % port)


class ByHand:
    """What a careful shell script does. Postgres refuses to run as root, so root has it run as another user."""

    def __init__(self, bin_dir, port, tmp):
        self.bin, self.port = bin_dir, port
        self.dir = tempfile.mkdtemp(prefix="lb-pg-", dir=tmp)
        self.data = os.path.join(self.dir, "data")
        self.user = {}
        if os.geteuid() == 0:
            self.user = dict(user="postgres", group="postgres", extra_groups=[])
            shutil.chown(self.dir, "postgres", "postgres")

    def run(self, program, *args, **kw):
        subprocess.run([os.path.join(self.bin, program), *args], check=True, cwd=self.dir, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, env=dict(os.environ, TZ="UTC"), **self.user, **kw)

    def create(self):
        self.run("initdb", "-D", self.data, "-U", "app", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
        unsynced = [x for s in ("fsync=off", "full_page_writes=off", "synchronous_commit=off") for x in ("-c", s)]
        self.run("postgres", "--single", "-D", self.data, *unsynced, "postgres", input=b"CREATE DATABASE app STRATEGY FILE_COPY\n")  # 15 and later
        self.run("initdb", "-D", self.data, "--sync-only")

    def serve(self):
        self.server = subprocess.Popen([os.path.join(self.bin, "postgres"), "-D", self.data, "-c", "listen_addresses=127.0.0.1", "-c",
                                        "port=%d" % self.port, "-c", "unix_socket_directories="], cwd=self.dir,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self.user)
        return until_ready(self.port)

    def stop(self):
        self.server.send_signal(signal.SIGINT)
        self.server.wait(30)

    def close(self): shutil.rmtree(self.dir, ignore_errors=True)


def by_hand(b):
    hand = ByHand(programs(), Box.next_port(), b.args.tmp)
    try:
        t = now()
        hand.create()
        yield "by hand", dict(what="from nothing", ms=(hand.serve() - t) / 1e6)
        hand.stop()
        t = now()
        yield "by hand", dict(what="with data", ms=(hand.serve() - t) / 1e6)
        hand.stop()
    finally: hand.close()


def locald(b):
    with Run(b, "locald", []) as r:
        port = Box.next_port()
        r.warm()
        r.c.write("locald.toml", '[project]\nname = "bench"\n[services.db]\ntype = "postgres"\nruntime = "process"\nport = %d\n'
                  'user = "app"\ndatabase = "app"\n' % port)
        for what, before in (("from nothing, the first time", []), ("from nothing", ["down", "--volumes"]), ("with data", ["down"])):
            if before: r.box.spawn(r.c.base() + before).wait(30)
            ready = r.start(r.c.base() + ["up"]) and until_ready(port)
            end = r.returned(30)
            yield "locald", dict(what=what, ms=(ready - r.t0) / 1e6, cli_ms=(end - r.t0) / 1e6 if end else None)
        r.box.spawn(r.c.base() + ["down", "--volumes"]).wait(30)


def cases(b):
    for _ in range(b.args.postgres_n):
        for fn in (by_hand, locald):
            try: yield from fn(b)
            except (OSError, subprocess.SubprocessError) as e: yield fn.__name__.replace("_", " "), dict(error=repr(e))
