"""What is measured, by the rows of the goal table. A scenario takes the bench and a contestant's name and yields rows;
one of SOLO takes the bench alone and yields (who, row)."""
import json
import os
import signal
import statistics
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import containers
import contestants
import postgres
from box import Box, Run, alive, cpu, ended, now, ran_ns, status_kb, switches
from contestants import Svc


def plain(bench, n, restart=False, kind="svc"):
    return [Svc("s%d" % i, [bench.work, kind, "s%d" % i], restart=restart) for i in range(n)]


def warms(name): return contestants.ALL[name].warm is not contestants.Contestant.warm


def startup(b, name):
    for n in b.args.sizes:
        for warm in (False, True) if warms(name) else (False,):
            with Run(b, name, plain(b, n)) as r:
                if warm: r.warm()
                before = cpu(r.box.managers())
                r.start()
                ev = r.box.wait("start", n, 60)
                if not ev:
                    yield dict(n=n, warm=warm, error="only %d of %d started in 60 s" % (len(r.box.read("start")), n)); continue
                out = dict(n=n, warm=warm, ms=(max(e[3] for e in ev) - r.t0) / 1e6, first_ms=(min(e[3] for e in ev) - r.t0) / 1e6)
                out["mgr_cpu_ms"] = 1000 * (cpu(r.box.managers()) - before)
                if not r.c.foreground:
                    end = r.returned(30)
                    if end: out["cli_ms"] = (end - r.t0) / 1e6
                yield out


def ready(b, name):
    for shape, crit in (("chain", 20), ("diamond", 3)):
        svcs = []
        for i in range(20):
            deps = [] if i == 0 else ["s%d" % (i - 1)] if shape == "chain" else \
                ["s0"] if i < 19 else ["s%d" % k for k in range(1, 19)]
            svcs.append(Svc("s%d" % i, [], deps, 1))
        for warm in (False, True) if warms(name) else (False,):
            with Run(b, name, []) as r:
                for s in svcs:
                    s.port = r.box.next_port()
                    s.argv = [b.work, "ready", s.name, str(s.port), "100"]
                r.c.config(svcs)
                if warm: r.warm()
                r.start()
                ev = r.box.wait("ready", 20, 60)
                if not ev: yield dict(shape=shape, warm=warm, error="%d of 20 ready in 60 s" % len(r.box.read("ready"))); continue
                ms = (max(e[3] for e in ev) - r.t0) / 1e6
                by = {e[1]: e[3] for e in r.box.read("start")}
                rd = {e[1]: e[3] for e in ev}
                early = sum(1 for s in svcs for d in s.deps if by[s.name] < rd[d])
                yield dict(shape=shape, warm=warm, ms=ms, critical_ms=crit * 100, over_ms=ms - crit * 100, started_before_dep_ready=early)


def logs(b, name):
    for mode, mib in (("bulk", b.args.bulk_mib), ("line", 95)):
        svcs = [Svc("s0", [b.work, "flood", "s0", str(mib), mode])]
        rd, wr = os.pipe()
        with Run(b, name, svcs) as r:
            follow = None
            if r.c.attached_logs: r.stdout = wr
            r.start()
            if not r.box.wait("start", 1, 20): yield dict(mode=mode, error="did not start"); continue
            if not r.c.attached_logs:
                time.sleep(1)
                follow = r.box.spawn(r.c.logs("s0"), stdout=wr)
            os.close(wr)
            sink = subprocess.Popen([b.work, "sink", "6000"], stdin=rd, stdout=subprocess.PIPE)
            os.close(rd)
            time.sleep(2)
            mgr = r.box.managers()
            c0 = cpu(mgr)
            open(r.box.go, "w").close()
            cap = b.args.log_cap
            capped = threading.Event()
            timer = threading.Timer(cap, lambda: (capped.set(), r.box.kill_all()))
            timer.start()
            peak = 0
            while sink.poll() is None and not capped.is_set():
                c1 = cpu(mgr)                     # sampled: a follower's figure goes when it does
                peak = max(peak, status_kb(mgr, "VmHWM"))
                time.sleep(0.05)
            timer.cancel()
            try: res = json.loads(sink.communicate(timeout=8)[0])
            except subprocess.TimeoutExpired: sink.kill(); yield dict(mode=mode, error="sink hung"); continue
            go = [e for e in r.box.read("go")]
            done = [e for e in r.box.read("done")]
            want = mib * 1048576 // 100
            secs = max(1e-9, (res["last"] - go[0][3]) / 1e9) if go and res["uniq"] else 0
            yield dict(mode=mode, mib=mib, mbps=res["uniq"] * 100 / 1e6 / secs if secs else 0, secs=secs,
                       delivered=res["uniq"] / want, lost=want - res["uniq"], dup=res["dup"], reordered=res["reordered"],
                       producer_mbps=want * 100 / 1e6 / ((done[0][3] - go[0][3]) / 1e9) if done else None,
                       cpu_s=c1 - c0, peak_mib=peak / 1024, capped=capped.is_set())


def logs_floor(b):
    """work flood | cat | cat | sink: two copies through pipes, what a daemon and a client must do."""
    for mode, mib in (("bulk", b.args.bulk_mib), ("line", 95)):
        box = Box(b.work, b.args)
        open(box.go, "w").close()
        p1 = box.spawn([b.work, "flood", "s0", str(mib), mode], stdout=subprocess.PIPE)
        p2 = subprocess.Popen(["cat"], stdin=p1.stdout, stdout=subprocess.PIPE, env=box.env)
        p3 = subprocess.Popen(["cat"], stdin=p2.stdout, stdout=subprocess.PIPE, env=box.env)
        sink = subprocess.Popen([b.work, "sink", "6000"], stdin=p3.stdout, stdout=subprocess.PIPE)
        res = json.loads(sink.communicate(timeout=120)[0])
        c = cpu([p2.pid, p3.pid])
        go = box.read("go")[0][3]
        yield "cat|cat", dict(mode=mode, mib=mib, mbps=res["uniq"] * 100 / 1e6 / ((res["last"] - go) / 1e9), secs=(res["last"] - go) / 1e9,
                              delivered=res["uniq"] / (mib * 1048576 // 100), lost=mib * 1048576 // 100 - res["uniq"], cpu_s=c,
                              peak_mib=status_kb([p2.pid, p3.pid], "VmHWM") / 1024)
        box.close()
        for p in (p2, p3): p.kill(); p.wait()


def restart(b, name):
    with Run(b, name, plain(b, 1, restart=True)) as r:
        r.start()
        ev = r.box.wait("start", 1, 20)
        if not ev: yield dict(error="did not start"); return
        for i in range(b.args.kills):
            time.sleep(1.6)                       # past every contestant's "it ran long enough"
            pid = r.box.read("start")[-1][2]
            t = now()
            os.kill(pid, signal.SIGKILL)
            ev = r.box.wait("start", i + 2, 15, distinct=False)
            if not ev: yield dict(error="kill %d: no replacement in 15 s" % (i + 1)); return
            yield dict(ms=(ev[-1][3] - t) / 1e6)


def stop(b, name):
    with Run(b, name, plain(b, 100)) as r:
        r.start()
        ev = r.box.wait("start", 100, 60)
        if not ev: yield dict(error="did not start"); return
        time.sleep(2.5)
        pids = [e[2] for e in ev]
        mgr = r.daemon()
        t = now()
        p = r.stop()
        with ThreadPoolExecutor(3) as watch:      # each end is seen when it comes, whatever comes first
            gone, mgone, cli = watch.map(ended, (pids, [mgr] if mgr else [], [p.pid]), (30, 45, 45))
        r.up.poll()
        all_ms = (max(gone, mgone, cli) - t) / 1e6 if gone and mgone and cli else None
        yield dict(kind="stop100", all_ms=all_ms, services_ms=(gone - t) / 1e6 if gone else None,
                   manager_ms=(mgone - t) / 1e6 if mgone else None, cli_ms=(cli - t) / 1e6 if cli else None,
                   left=sum(alive(x) for x in pids), honoured=len(r.box.read("term")),
                   mgr_procs_left=len(r.box.managers()))
    with Run(b, name, plain(b, 5, kind="fork")) as r:
        r.start()
        ev = r.box.wait("child", 20, 30, distinct=False)
        if not ev: yield dict(error="forks did not start"); return
        time.sleep(2.5)
        kids = {e[2]: e[4][0] for e in ev}
        t = now()
        mgr = r.daemon()
        p = r.stop()
        ended([p.pid], 15)
        hung = ended([mgr] if mgr else [], max(2, 20 - (now() - t) / 1e9)) is None
        end = now()
        r.up.poll()
        time.sleep(1)
        left = {}
        for pid, kind in kids.items():
            if alive(pid): left[kind] = left.get(kind, 0) + 1
        yield dict(kind="forks", ms=(end - t) / 1e6, hung=hung, survivors=sum(left.values()), of=20, by_kind=left)


def crash(b, name):
    n = 50
    with Run(b, name, plain(b, n, restart="restart" in contestants.ALL[name].caps)) as r:
        r.start()
        ev = r.box.wait("start", n, 60)
        if not ev: yield dict(error="did not start"); return
        time.sleep(3)
        d = r.daemon()
        os.kill(d, signal.SIGKILL)
        r.up.poll()
        time.sleep(2)
        old = {e[2]: e[1] for e in r.box.read("start")}
        orphans = sum(alive(p) for p in old)
        t = now()
        try: r.start()
        except OSError as e: yield dict(error=str(e)); return
        settled = None
        end = time.monotonic() + 12
        while time.monotonic() < end:
            live = {}
            for e in r.box.read("start"):
                if alive(e[2]): live.setdefault(e[1], set()).add(e[2])
            ok = len(live) == n and all(len(v) == 1 for v in live.values())
            # consistent: one live instance a name, and (if it can be asked) a manager that answers
            if ok and (settled is None): settled = now()
            if not ok: settled = None
            if settled and now() - settled > 3e9: break
            time.sleep(0.003)
        answers = None
        st = r.c.status()
        if st:
            try: answers = subprocess.run(st, cwd=r.box.dir, env=dict(r.box.env, BENCH_UP_PID=str(r.up.pid)), timeout=10,
                                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
            except subprocess.TimeoutExpired: answers = False
        adopted = sum(alive(p) for p in old)
        yield dict(orphans=orphans, instances=sum(len(v) for v in live.values()), missing=n - len(live),
                   duplicates=sum(len(v) - 1 for v in live.values()), adopted_or_left=adopted,
                   consistent_ms=(settled - t) / 1e6 if settled else None, status_answers=answers)


def idle(b, name):
    with Run(b, name, plain(b, 100)) as r:
        r.start()
        if not r.box.wait("start", 100, 60): yield dict(error="did not start"); return
        time.sleep(5)
        m = r.box.managers()
        c0, s0 = ran_ns(m), switches(m)
        time.sleep(b.args.idle_s)
        out = dict(procs=len(m), pss_mib=status_kb(m, "Pss", "smaps_rollup") / 1024,
                   rss_mib=status_kb(m, "VmRSS") / 1024, cpu_ms_per_s=(ran_ns(m) - c0) / 1e6 / b.args.idle_s,
                   switches_per_s=(switches(m) - s0) / b.args.idle_s)
        d = r.daemon()
        out["daemon_pss_mib"] = status_kb([d], "Pss", "smaps_rollup") / 1024 if d else None
        for what, argv in (("status", r.c.status()), ("version", r.c.version())):
            if not argv: continue
            t = r.timed(argv, b.args.status_n)
            out.update({what + "_ms": statistics.median(t["ms"]), what + "_min": min(t["ms"]),
                        what + "_cpu_ms": statistics.median(t["cpu_ms"]), what + "_rc": t["rc"]})
        yield out


def empty(b):
    """What no command written in Go is faster than."""
    with Run(b, "floor-go", []) as r:
        t = r.timed([b.find("empty-go")], b.args.status_n)
        ms, cpu_ms = statistics.median(t["ms"]), statistics.median(t["cpu_ms"])
        yield "empty-go", dict(status_ms=ms, status_cpu_ms=cpu_ms, version_ms=ms, version_cpu_ms=cpu_ms)


def growth(b, name):
    for n in b.args.growth:
        with Run(b, name, plain(b, n)) as r:
            r.start()
            ev = r.box.wait("start", n, 120)
            if not ev: yield dict(n=n, error="%d of %d started in 120 s" % (len(r.box.read("start")), n)); continue
            out = dict(n=n, up_ms=(max(e[3] for e in ev) - r.t0) / 1e6)
            if not r.c.foreground: r.returned(60)
            time.sleep(2)
            out["pss_mib"] = status_kb(r.box.managers(), "Pss", "smaps_rollup") / 1024
            if r.c.status():
                out["status_ms"] = statistics.median(r.timed(r.c.status(), 5)["ms"])
                out["noop_ms"] = statistics.median(r.timed(r.c.up(), 3)["ms"])
            yield out


FOLLOWERS = 100


def followers(b):
    """Whether the service waits for those who follow it: flat out, and at the pace of a busy service."""
    for pace, mib, rate in (("flat", b.args.follow_mib, []), ("paced", 48, ["16"])):
        for n in (0, FOLLOWERS):
            with Run(b, "locald", [Svc("s0", [b.work, "flood", "s0", str(mib), "bulk"] + rate)]) as r:
                r.start()
                if not r.box.wait("start", 1, 20): yield "locald", dict(pace=pace, followers=n, error="did not start"); continue
                r.returned(10)
                mgr = r.box.managers()
                all_of_them = [r.box.spawn(r.c.logs("s0")) for _ in range(n)]
                time.sleep(2)
                for f in all_of_them[::2]: os.kill(f.pid, signal.SIGSTOP)
                open(r.box.go, "w").close()
                done = r.box.wait("done", 1, 60)
                if not done: yield "locald", dict(pace=pace, followers=n, error="not done in 60 s"); continue
                yield "locald", dict(pace=pace, followers=n, mib=mib, ms=(done[0][3] - r.box.read("go")[0][3]) / 1e6,
                                     peak_mib=status_kb(mgr, "VmHWM") / 1024)


def grep(b):
    """The same bytes, once in locald's store and once in a file for ripgrep; both in the page cache."""
    with Run(b, "locald", [Svc("s0", [b.work, "text", "s0", str(b.args.grep_mib)])]) as r:
        r.c.config(r.svcs, 'logs = { size = "%dMiB" }\n' % (4 * b.args.grep_mib))
        r.start()
        if not r.box.wait("start", 1, 20): yield "locald", dict(error="did not start"); return
        open(r.box.go, "w").close()
        if not r.box.wait("done", 1, 120): yield "locald", dict(error="not written in 120 s"); return
        plain_file = os.path.join(r.box.dir, "text")
        with open(plain_file, "w") as f: writer = r.box.spawn([b.work, "text", "by-hand", str(b.args.grep_mib)], stdout=f)
        r.box.wait("done", 2, 120)
        writer.kill()
        with open(plain_file) as f:
            f.seek(os.path.getsize(plain_file) // 2)
            f.readline()
            literal = f.readline().split()[2].split("=")[1]
        found = os.path.join(r.box.dir, "found")
        for kind, pattern in (("literal", literal), ("regular expression", "[0-9]{9}[a-f][0-9]{6}")):
            for who, argv in (("ripgrep", [b.find("rg"), "--no-config", "--no-line-number", "--", pattern, plain_file]),
                              ("locald", r.c.base() + ["logs", "--raw", "--grep", pattern, "s0"])):
                with open(found, "w") as f: r.timed(argv, 1, out=f)
                with open(found) as f: lines = sum(1 for _ in f)
                with open(found, "w") as f: t = r.timed(argv, b.args.grep_n, out=f)
                yield who, dict(kind=kind, mib=b.args.grep_mib, ms=statistics.median(t["ms"]), cpu_ms=statistics.median(t["cpu_ms"]), lines=lines)


SCENARIOS = {"startup": (startup, "up"), "ready": (ready, "deps"), "logs": (logs, "logs"), "restart": (restart, "restart"),
             "stop": (stop, "down"), "crash": (crash, "crash"), "idle": (idle, "up"), "growth": (growth, "growth")}
SOLO = {"logs": logs_floor, "followers": followers, "grep": grep, "idle": empty, "containers": containers.cases, "postgres": postgres.cases}
ROWS = {"A": ["startup"], "B": ["ready"], "C": ["logs"], "C2": ["followers", "grep"], "D": ["restart"], "E": ["stop"], "F": ["crash"], "G": ["idle"],
        "H": ["idle"], "I": ["containers"], "J": ["containers"], "K": ["growth"], "L": ["postgres"]}
