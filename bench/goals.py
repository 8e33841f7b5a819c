"""The goal table: what each row asks for, and what a run says of it."""
import math
import statistics
from dataclasses import dataclass

from contestants import FLOORS, OURS


class Rows:
    """The rows of a run, and their medians."""

    def __init__(self, rows): self.rows = rows

    def pick(self, scenario, who, **kw):
        return [r for r in self.rows if r["scenario"] == scenario and r["who"] == who and "error" not in r
                and all(r.get(k, False if k == "warm" else None) == v for k, v in kw.items())]

    def values(self, scenario, who, key, **kw):
        return [r[key] for r in self.pick(scenario, who, **kw) if r.get(key) is not None]

    def med(self, scenario, who, key, **kw):
        v = self.values(scenario, who, key, **kw)
        return statistics.median(v) if v else None

    def whos(self, scenario): return list(dict.fromkeys(r["who"] for r in self.rows if r["scenario"] == scenario))

    def fails(self, scenario, who): return sorted({r["error"] for r in self.rows if r["scenario"] == scenario and r["who"] == who and "error" in r})

    def peers(self, scenario, key, sound=lambda r: True, **kw):
        """{peer: median} of those whose every run was sound."""
        out = {}
        for w in self.whos(scenario):
            rows = self.pick(scenario, w, **kw)
            if w not in FLOORS + OURS and rows and all(map(sound, rows)):
                m = self.med(scenario, w, key, **kw)
                if m is not None: out[w] = m
        return out

    def best(self, scenario, key, most=False, **kw):
        p = self.peers(scenario, key, **kw)
        if not p: return None
        w = (max if most else min)(p, key=p.get)
        return w, p[w]


@dataclass
class Goal:
    row: str
    work: str
    unit: str
    measured: float | None = None
    limit: float = 0            # of measured / floor, or of measured alone where there is no floor
    floor: float | None = None  # the goal is a ratio when floor_name is set
    floor_name: str = ""
    least: bool = False         # limit is the least that is allowed
    peer: tuple | None = None
    digits: int = 0
    beside: str = ""            # further figures that belong to it
    sound: bool = True          # False: the figure does not count, for what beside says

    @property
    def value(self):
        if self.measured is None or self.floor_name and not self.floor: return None
        return self.measured / self.floor if self.floor_name else self.measured

    @property
    def reached(self):
        if self.value is None: return None
        shown = round(self.value, 2 if self.floor_name else 3)     # what the page shows is what is judged
        return self.sound and (shown >= self.limit if self.least else shown <= self.limit)

    @property
    def of_goal(self):
        """How much of what is allowed is used: up to 1 is reached."""
        if not self.value or not self.limit: return None
        return self.limit / self.value if self.least else self.value / self.limit


def exponent(r, who, key, low=100):
    """How a cost grows from low services on: 1 is linear. None without two sizes from there."""
    at = sorted((n, r.med("growth", who, key, n=n)) for n in {row["n"] for row in r.rows if row["scenario"] == "growth"} if n >= low)
    at = [(n, v) for n, v in at if v]
    return math.log(at[-1][1] / at[0][1]) / math.log(at[-1][0] / at[0][0]) if len(at) > 1 else None


def slowed(r, pace):
    alone, followed = (r.med("followers", "locald", "ms", pace=pace, followers=n) for n in (0, 100))
    return 100 * (followed / alone - 1) if alone and followed else None


def goals(r):
    up = lambda who, n, warm=False: r.med("startup", who, "ms", n=n, warm=warm)
    big = max((row["n"] for row in r.rows if row["scenario"] == "startup" and "n" in row), default=200)
    out = [
        Goal("A", "%d services up, daemon running" % big, "ms", up("locald", big, True), 1.25, up("floor-go", big), "floor-go",
             peer=r.best("startup", "ms", n=big, warm=False)),
        Goal("A", "%d services up, no daemon" % big, "ms", up("locald", big), 1.4, up("floor-go", big), "floor-go", peer=r.best("startup", "ms", n=big, warm=False)),
        Goal("A", "1 service up, no daemon", "ms", up("locald", 1), 3, up("floor-go", 1), "floor-go", peer=r.best("startup", "ms", n=1, warm=False), digits=1),
    ]
    early = lambda row: row["started_before_dep_ready"] == 0
    for who, what, limit in (("locald/notify", "`notify`", 45), ("locald", "plain TCP port", 120)):
        warm = r.med("ready", who, "over_ms", shape="chain", warm=True)
        out.append(Goal("B", "chain of 20 over its critical path, " + what, "ms", r.med("ready", who, "over_ms", shape="chain", warm=False), limit,
                        peer=r.best("ready", "over_ms", sound=early, shape="chain", warm=False),
                        beside="floor-go %.0f" % f if (f := r.med("ready", "floor-go", "over_ms", shape="chain")) else ""))
        if warm is not None: out[-1].beside += "; daemon running: %.0f" % warm
    nothing_lost = lambda row: row["lost"] == 0 and not row.get("capped")
    for mode, what, limit in (("bulk", "64 KiB writes", 0.42), ("line", "one-line writes", 0.7)):
        lost = r.values("logs", "locald", "lost", mode=mode)
        out.append(Goal("C", "output to one follower, " + what, "MB/s", r.med("logs", "locald", "mbps", mode=mode), limit,
                        r.med("logs", "cat|cat", "mbps", mode=mode), "cat \\| cat", least=True, sound=not any(lost),
                        peer=r.best("logs", "mbps", most=True, sound=nothing_lost, mode=mode),
                        beside="" if not lost else "nothing lost" if not any(lost) else "**%d lines lost**" % max(lost)))
    per_gb = [row["cpu_s"] / (row["mib"] * 1.048576e-3) for row in r.pick("logs", "locald")]
    out += [
        Goal("C", "memory of it, daemon, keeper and client", "MiB", max(r.values("logs", "locald", "peak_mib"), default=None), 32,
             peer=r.best("logs", "peak_mib", sound=nothing_lost, mode="bulk")),
        Goal("C", "processor time of it", "s a GB", max(per_gb, default=None), 5, digits=2),
        Goal("C2", "service slowed by 100 followers, half of them stopped, flat out", "%", slowed(r, "flat"), 5, digits=1,
             beside="at 16 MiB/s: %.1f %%" % s if (s := slowed(r, "paced")) is not None else ""),
    ]
    for kind, limit in (("literal", 1), ("regular expression", 3)):
        grep = lambda who: r.med("grep", who, "ms", kind=kind)
        mib = next((row["mib"] for row in r.pick("grep", "locald", kind=kind)), 1024)
        same = r.med("grep", "locald", "lines", kind=kind) == r.med("grep", "ripgrep", "lines", kind=kind)
        out.append(Goal("C2", "`logs --grep` over %d MiB, %s" % (mib, kind), "ms", grep("locald"), limit, grep("ripgrep"), "ripgrep", sound=same,
                        beside="" if same else "**other lines than ripgrep finds**"))
    kills = r.values("restart", "locald", "ms")
    out += [
        Goal("D", "SIGKILL to the replacement", "ms", r.med("restart", "locald", "ms"), 1.5, r.med("restart", "floor-go", "ms"), "floor-go", digits=2,
             peer=r.best("restart", "ms")),
        Goal("D", "the slowest of %d" % len(kills), "ms", max(kills, default=None), 10, digits=1),
        Goal("E", "stop of 100 services, all gone and the command returned", "ms", r.med("stop", "locald", "all_ms", kind="stop100"), 1.4,
             r.med("stop", "floor-go", "all_ms", kind="stop100"), "floor-go", digits=1, peer=r.best("stop", "all_ms", kind="stop100")),
        Goal("E", "descendants left of the fork test, of 20", "", r.med("stop", "locald", "survivors", kind="forks"), 0, peer=r.best("stop", "survivors", kind="forks")),
    ]
    once = all(row["instances"] == 50 and not row["duplicates"] and not row["missing"] and not row["adopted_or_left"] for row in r.pick("crash", "locald"))
    whole = lambda row: row["instances"] == 50 and not row["duplicates"] and not row["missing"] and row["status_answers"] is not False
    out.append(Goal("F", "daemon killed, 50 services: each runs exactly once", "ms", r.med("crash", "locald", "consistent_ms"), 150, sound=once,
                    peer=r.best("crash", "consistent_ms", sound=whole), beside="each once, none left over" if once and r.pick("crash", "locald") else ""))
    idle = lambda who, key: r.med("idle", who, key)
    out += [
        Goal("G", "memory with 100 idle services, all processes", "MiB", idle("locald", "pss_mib"), 15, digits=1, peer=r.best("idle", "pss_mib")),
        Goal("G", "wake-ups of it", "a second", idle("locald", "switches_per_s"), 1, digits=1, peer=r.best("idle", "switches_per_s")),
        Goal("H", "`locald status`, 100 services", "ms", idle("locald", "status_ms"), 3, idle("empty-go", "status_ms"), "empty Go program", digits=1,
             peer=r.best("idle", "status_ms")),
        Goal("H", "`locald version`", "ms", idle("locald", "version_ms"), 3, idle("empty-go", "version_ms"), "empty Go program", digits=1,
             peer=r.best("idle", "version_ms")),
    ]
    c = lambda who: r.med("containers", who, "up_ms")
    compose = lambda who: (("compose", c(who)) if c(who) else None)
    for what, ours, floor, peer in (("one container", "locald, docker", "Docker API, default bridge + port", "compose up -d"),
                                    ("database + app", "db + app: locald, docker", "db + app: Docker API, then a process", "db + app: compose, service_healthy (100 ms)"),
                                    ("ten containers", "10 containers: locald, docker", "10 containers: Docker API, 10 threads", "10 containers: compose up -d")):
        out.append(Goal("I", "Docker, %s: port answers" % what, "ms", c(ours), 1.1, c(floor), "the bare API", peer=compose(peer)))
    if c("Docker API, own network + port"): out[-3].beside = "the bare API with a network of its own: %.0f" % c("Docker API, own network + port")
    out.append(Goal("J", "`builtin`, host network: port answers", "ms", c("locald, builtin, host network"), 1, c("runc alone, host network"), "runc", digits=1,
                    beside="own network and published port: %.0f" % c("locald, builtin") if c("locald, builtin") else ""))
    for key, what in (("up_ms", "`up`"), ("noop_ms", "`up` with nothing to do"), ("status_ms", "`status`"), ("pss_mib", "memory")):
        sizes = sorted({row["n"] for row in r.rows if row["scenario"] == "growth"})
        unit = "MiB" if key == "pss_mib" else "ms"
        top = r.med("growth", "locald", key, n=sizes[-1]) if sizes else None
        out.append(Goal("K", "exponent of the growth of %s, 100 to %d services" % (what, sizes[-1] if sizes else 1000), "", exponent(r, "locald", key), 1.05, digits=2,
                        beside="%.0f %s with %d" % (top, unit, sizes[-1]) if top else ""))
    pg = lambda who, what: r.med("postgres", who, "ms", what=what)
    for what in ("from nothing", "with data"):
        first = pg("locald", what + ", the first time")
        out.append(Goal("L", "Postgres ready " + what, "ms", pg("locald", what), 1.2, pg("by hand", what), "by hand",
                        beside="the first time on a machine: %.0f" % first if first else ""))
    return out
