"""docs/performance.md: the goal table, the notes of people, the plots and the tables of one run."""
import json
import os
import re
import statistics

import goals
import plot
from contestants import FLOORS, OURS

MISSING = "–"


class Rows(goals.Rows):
    def __init__(self, files):
        rows = []
        for name in files:
            with open(name) as f: rows += [json.loads(l) for l in f]
        super().__init__(rows)
        self.machine = next((r for r in rows if r["scenario"] == "machine"), {})


def num(x, digits=0): return MISSING if x is None else "%.*f" % (digits, x)


def med(xs):
    xs = [x for x in xs if x is not None]
    return statistics.median(xs) if xs else None


def times(x, y): return "%.1f" % (x / y) if x and y else MISSING


def table(title, head, body, note=""):
    """A section with one table; a table without rows is left out."""
    if not body: return []
    left = sum(1 for h in head if h in ("contestant", "path", "who", "what", "row", "work"))
    cells = [" | ".join(c.replace("|", "\\|") if "\\|" not in c else c for c in r) for r in body]
    return ["", "### " + title, ""] + ([note, ""] if note else []) + [
        "| %s |" % " | ".join(head), "|" + "---|" * left + "--:|" * (len(head) - left), *("| %s |" % c for c in cells)]


def who(w): return "**%s**" % w if w in OURS else "*%s*" % w if w in FLOORS else w


# ---- the goal table ----

def goal_table(all_goals):
    out = ["| | work | goal | measured | floor | of floor | best peer | |", "|---|---|--:|--:|--:|--:|--:|:-:|"]
    for g in all_goals:
        of = "%.2f ×" % g.value if g.floor_name and g.value is not None else ""
        limit = "0" if not g.limit else ("≥ " if g.least else "≤ ") + ("%g × %s" % (g.limit, g.floor_name) if g.floor_name else ("%g %s" % (g.limit, g.unit)).strip())
        measured = MISSING if g.measured is None else "**%s**" % (num(g.measured, g.digits) + (" " + g.unit if g.unit else ""))
        if g.beside and g.measured is not None: measured += "<br><sub>%s</sub>" % g.beside
        peer = "%s %s" % (g.peer[0], num(g.peer[1], max(g.digits, 1) if g.peer[1] < 10 and g.unit else g.digits)) if g.peer else ""
        mark = {True: "✓", False: "**missed**", None: "not measured"}[g.reached]
        out.append("| %s | %s | %s | %s | %s | %s | %s | %s |" % (
            g.row, g.work, limit, measured, num(g.floor, max(1, g.digits)) if g.floor else "", of, peer, mark))
    return out


def notes_of(path):
    """{row: text} of notes.md, whose sections are headed by rows."""
    if not os.path.exists(path): return {}
    with open(path) as f: parts = re.split(r"^## (\w+)[^\n]*\n", f.read(), flags=re.M)
    return {row: text.strip() for row, text in zip(parts[1::2], parts[2::2]) if text.strip()}


# ---- the tables ----

def startup(r):
    ns = sorted({x["n"] for x in r.rows if x["scenario"] == "startup" and "n" in x})
    if not ns: return []
    body = []
    for w in r.whos("startup"):
        for warm in (False, True):
            if warm and not r.pick("startup", w, warm=True): continue
            at = lambda key, n: r.med("startup", w, key, n=n, warm=warm)
            body.append([who(w) + (", daemon running" if warm else "")] + [num(at("ms", n), 1) for n in ns] + [
                times(at("ms", ns[-1]), r.med("startup", "floor-go", "ms", n=ns[-1], warm=False)), num(at("mgr_cpu_ms", ns[-1])), num(at("cli_ms", ns[-1])),
                "; ".join(r.fails("startup", w)) if not warm else ""])
    return table("A. Start: command to the last of N services running, ms",
                 ["contestant", *("N = %d" % n for n in ns), "of floor-go", "manager's CPU ms", "command returned", ""], body,
                 "The two columns after “of floor-go” are for N = %d. CPU has a resolution of 10 ms." % ns[-1])


def ready(r):
    body = []
    for w in r.whos("ready"):
        for warm in (False, True):
            if warm and not r.pick("ready", w, warm=True): continue
            at = lambda key, shape: r.med("ready", w, key, shape=shape, warm=warm)
            body.append([who(w) + (", daemon running" if warm else ""), num(at("ms", "chain")), num(at("over_ms", "chain"), 1), num(at("ms", "diamond")),
                         num(at("over_ms", "diamond"), 1), num(at("started_before_dep_ready", "chain")), "; ".join(r.fails("ready", w))])
    return table("B. Readiness: 20 services, each ready 100 ms after its start, ms",
                 ["contestant", "chain (2000 is critical)", "over", "diamond (300)", "over", "started too soon", ""], body,
                 "From the command that starts everything, the daemon included. “Too soon”: before what they depend on was ready.")


def logs(r):
    out = []
    for mode in ("bulk", "line"):
        body = []
        for w in r.whos("logs"):
            p = r.pick("logs", w, mode=mode)
            if not p: continue
            whole = [x for x in p if not x.get("capped")]
            body.append([who(w).replace("|", "\\|"), num(med([x["mbps"] for x in p]), 1), num(med([100 * x["delivered"] for x in whole]), 2),
                         num(med([x["lost"] for x in whole])), num(med([x.get("producer_mbps") for x in p]), 1),
                         num(med([x["cpu_s"] / max(1e-9, x["mib"] * 1.048576e-3 * (x["delivered"] if x.get("capped") else 1)) for x in p]), 2),
                         num(med([x["peak_mib"] for x in p])), "cut off" if len(whole) < len(p) else ""])
        out += table("C. Output of one service to one follower, %s" % ("64 KiB writes" if mode == "bulk" else "one write a line of 100 bytes"),
                     ["contestant", "MB/s", "delivered %", "lines lost", "service writes MB/s", "CPU s a GB", "peak MiB", ""], body,
                     "Processor time and memory are those of manager and client together." if mode == "bulk" else "")
    return out


def followers(r):
    body = []
    for pace, what in (("flat", "flat out"), ("paced", "at 16 MiB/s")):
        for n in (0, 100):
            p = r.pick("followers", "locald", pace=pace, followers=n)
            if p: body.append([what, str(n), num(med([x["ms"] for x in p]), 1), num(med([x["mib"] / (x["ms"] / 1000) for x in p]), 1), num(med([x["peak_mib"] for x in p]))])
    out = table("C2. A service that writes while 100 follow, every other one stopped", ["what", "followers", "writing took ms", "MiB/s", "peak MiB"], body)
    body = [[who(w), kind, num(r.med("grep", w, "ms", kind=kind), 1), num(r.med("grep", w, "lines", kind=kind))]
            for kind in ("literal", "regular expression") for w in r.whos("grep") if r.pick("grep", w, kind=kind)]
    return out + table("C2. Search in what is stored, ms", ["who", "pattern", "ms", "lines found"], body)


def restart(r):
    body = [[who(w), num(med(x), 2), num(min(x), 2) if x else MISSING, num(max(x), 1) if x else MISSING, str(len(x)), "; ".join(r.fails("restart", w))]
            for w in r.whos("restart") for x in [r.values("restart", w, "ms")]]
    return table("D. SIGKILL of a service to its replacement, ms", ["contestant", "median", "least", "most", "kills", ""], body,
                 "The service had been up for 1.6 s; each contestant has the least delay that it allows.")


def stop(r):
    body = []
    for w in r.whos("stop"):
        q = r.pick("stop", w, kind="forks")
        at = lambda key: r.med("stop", w, key, kind="stop100")
        body.append([who(w), num(at("services_ms"), 1), num(at("manager_ms"), 1), num(at("cli_ms"), 1), num(at("all_ms"), 1), num(at("left")), num(med([x["survivors"] for x in q])),
                     " ".join("%s:%d" % kv for kv in sorted(q[-1]["by_kind"].items())) if q else "",
                     "did not stop (20 s)" if any(x["hung"] for x in q) else num(med([x["ms"] for x in q])), "; ".join(r.fails("stop", w))])
    return table("E. Stop, ms", ["contestant", "100 services gone", "manager gone", "command returned", "all of it", "left", "fork test: left of 20", "which", "fork test took", ""], body,
                 "Everybody has its default grace. In the fork test one descendant of each service ignores SIGTERM: who ends that one too waits for its grace "
                 "first (locald: 10 s); who does not see it is done at once.")


def crash(r):
    body = []
    for w in r.whos("crash"):
        p = r.pick("crash", w)
        settled = "does not come back" if any(x["status_answers"] is False for x in p) else \
            "never (12 s)" if all(x["consistent_ms"] is None for x in p) else num(med([x["consistent_ms"] for x in p]))
        body.append([who(w), *(num(med([x[k] for x in p])) for k in ("orphans", "instances", "duplicates", "missing", "adopted_or_left")), settled if p else MISSING,
                     "; ".join(r.fails("crash", w))])
    return table("F. SIGKILL of the manager with 50 services, 2 s later the same start command", [
        "contestant", "still running after 2 s", "instances then", "twice", "missing", "old ones alive", "one of each after ms", ""], body,
        "For s6 and runit the supervisor of each service is a process of its own, which was not killed.")


def idle(r):
    body = []
    for w in r.whos("idle"):
        at = lambda key, d: num(r.med("idle", w, key), d)
        body.append([who(w), at("procs", 0), at("pss_mib", 1), at("cpu_ms_per_s", 2), at("switches_per_s", 1), at("status_ms", 1), at("status_cpu_ms", 1),
                     at("version_ms", 1), "; ".join(r.fails("idle", w))])
    return table("G, H. 100 idle services, and the commands that ask", [
        "contestant", "manager processes", "PSS MiB", "CPU ms a second", "switches a second", "status ms", "its CPU ms", "version ms", ""], body,
        "PSS: memory, what is shared counted once, of the manager and all its helpers. s6 has no command that lists: its status is one for each service.")


def containers(r):
    cell = lambda w, key: (lambda x: "%s <sub>%s</sub>" % (num(med(x)), num(min(x))) if x else MISSING)(r.values("containers", w, key))
    paths = [w for w in r.whos("containers") if not w.startswith("logs")]
    bold = lambda w: "**%s**" % w if "locald" in w else w
    out = table("I, J. Containers, ms: median, and least", ["path", "port answers", "command returned", "down", "times", ""],
                [[bold(w), cell(w, "up_ms"), cell(w, "cli_ms"), cell(w, "down_ms"), str(len(r.pick("containers", w))), "; ".join(r.fails("containers", w))] for w in paths],
                "The image is there. locald gives each project a network of its own, as compose does; its daemon runs, unless it says otherwise.")
    return out + table("I. Output of a container to one follower: a million lines of 100 bytes", ["path", "MB/s", "lines lost"],
                       [[w, num(r.med("containers", w, "mbps"), 1), num(r.med("containers", w, "lost"))] for w in r.whos("containers") if w.startswith("logs")])


def growth(r):
    body = []
    for w in r.whos("growth"):
        for n in sorted({x["n"] for x in r.pick("growth", w)}):
            at = lambda key: r.med("growth", w, key, n=n)
            pss = at("pss_mib")
            body.append([who(w), str(n), num(at("up_ms"), 1), num(at("noop_ms"), 1), num(at("status_ms"), 1), num(pss, 1), num(1024 * pss / n if pss else None),
                         "; ".join(r.fails("growth", w))])
    return table("K. Growth", ["contestant", "services", "up ms", "up with nothing to do ms", "status ms", "PSS MiB", "KiB a service", ""], body,
                 "The exponent of the goal table is of the steps from 100 services on: 1 is linear; up to 1.05 counts as that.")


def postgres(r):
    body = [[who(w), what, num(r.med("postgres", w, "ms", what=what)), num(r.med("postgres", w, "cli_ms", what=what)), "; ".join(r.fails("postgres", w))]
            for what in ("from nothing, the first time", "from nothing", "with data") for w in r.whos("postgres") if r.pick("postgres", w, what=what)]
    return table("L. Postgres, ms", ["who", "what", "answers its protocol", "command returned", ""], body,
                 "locald's daemon runs. By hand: `initdb --no-sync`, the database by `postgres --single`, `initdb --sync-only`, then `postgres` with fsync on.")


def tables(r):
    return [line for t in (startup, ready, logs, followers, restart, stop, crash, idle, containers, growth, postgres) for line in t(r)]


# ---- the plots ----

def kind(w): return "ours" if w == "locald" else "ours2" if w in OURS else "floor" if w in FLOORS else "peer"


def plots(r, all_goals):
    """{name: (alternative text, SVG)}"""
    out = {}
    if any(g.of_goal for g in all_goals):
        out["goals"] = ("Each goal: how much of what it allows is used", plot.overview(all_goals))
    series = []
    for w in r.whos("startup"):
        for warm in (False, True):
            points = sorted({x["n"]: r.med("startup", w, "ms", n=x["n"], warm=warm) for x in r.pick("startup", w, warm=warm)}.items())
            if len(points) > 1 and not (warm and w not in OURS):
                series.append((w + (", warm" if warm else ""), "ours2" if warm else kind(w), points))
    if series:
        out["startup"] = ("Start of N services", plot.lines("Start: command to the last of N services running",
                          "Both axes logarithmic; lower is better. Warm: locald's daemon runs already.", series, "ms", "services"))
    rows = []
    for w in r.whos("logs"):
        speed, p = r.med("logs", w, "mbps", mode="bulk"), r.pick("logs", w, mode="bulk")
        if speed:
            lost = max((x["lost"] for x in p if not x.get("capped")), default=0)
            rows.append((w, kind(w), speed, "%.0f %% lost" % (100 * (1 - min(x["delivered"] for x in p))) if lost else ""))
    if rows:
        out["logs"] = ("Output of one service to one follower", plot.bars("Output of one service to one follower, 64 KiB writes",
                       "What arrives, in MB a second; more is better.", sorted(rows, key=lambda x: -x[2]), "MB/s"))
    panels = []
    for key, what, unit in (("up_ms", "up", "ms"), ("noop_ms", "up with nothing to do", "ms"), ("status_ms", "status", "ms"), ("pss_mib", "memory a service", "KiB")):
        series = []
        for w in r.whos("growth"):
            if key == "pss_mib" and w in FLOORS: continue
            points = sorted((n, m) for n in {x["n"] for x in r.pick("growth", w)} if (m := r.med("growth", w, key, n=n)))
            if len(points) > 1: series.append((w, kind(w), [(n, 1024 * v / n) for n, v in points] if key == "pss_mib" else points))
        if series: panels.append((what, unit, series))
    if panels:
        out["growth"] = ("Growth with the number of services", plot.small("Growth with the number of services",
                         "locald, and dashed floor-go where it can; both axes logarithmic.", panels))
    return out


# ---- the page ----

HEAD = """# Performance

Written by `make bench`: do not edit. What is said here by people is in `bench/notes.md`; how it is measured, in
[bench/README.md](../bench/README.md). Goals are ratios of medians within this one run, or absolute where no floor is named.
"""


def page(r, out, notes_path):
    all_goals, notes = goals.goals(r), notes_of(notes_path)
    measured = [g for g in all_goals if g.reached is not None]
    m = r.machine
    end = next((x for x in r.rows if x["scenario"] == "end"), {})
    lines = [HEAD, "**%d of %d goals reached**%s." % (sum(g.reached for g in measured), len(all_goals),
             ", %d not measured" % (len(all_goals) - len(measured)) if len(measured) < len(all_goals) else "")]
    folder = os.path.splitext(out)[0]
    os.makedirs(folder, exist_ok=True)
    pictures = {}
    for name, (text, svg) in plots(r, all_goals).items():
        with open(os.path.join(folder, name + ".svg"), "w") as f: f.write(svg)
        pictures[name] = ["", "![%s](%s/%s.svg)" % (text, os.path.basename(folder), name)]
    lines += pictures.get("goals", []) + ["", "## Goals", ""] + goal_table(all_goals)
    lines += ["", "Floors: `floor-go` (`bench/floor`) is the least a supervisor in Go can do; `floor-c` is vfork and exec in a loop; `cat | cat` copies twice, as a "
              "daemon and a client must. The best peer is the best whose runs were sound: nothing lost, nothing twice, nothing started too soon."]
    explained = [(row, notes.get(row)) for row in dict.fromkeys(g.row for g in all_goals)]
    if any(text for _, text in explained) or any(g.reached is False for g in all_goals):
        lines += ["", "## Why, and what was tried"]
        for row, text in explained:
            missed = [g for g in all_goals if g.row == row and g.reached is False]
            if text or missed:
                lines += ["", "### Row %s%s" % (row, "" if not missed else ", missed: " + "; ".join(g.work for g in missed)), "", text or "Not explained yet."]
    if pictures: lines += ["", "## Plots"] + [l for name in ("startup", "logs", "growth") for l in pictures.get(name, [])]
    lines += ["", "## Tables", "", "Medians of one run. **locald** is this build; *floors* are no supervisors; “cut off” hit the time limit of the scenario."]
    lines += tables(r)
    if notes.get("Guard"): lines += ["", "## Guard", "", notes["Guard"]]
    rounds = 1 + max((x["round"] for x in r.rows), default=0)
    loads = [x["load"] for x in r.rows if "load" in x]
    lines += ["", "## The run", "", "| | |", "|---|---|",
              "| command | `%s` |" % m.get("command", ""), "| when | %s%s |" % (m.get("date", ""), ", %.0f minutes" % end["minutes"] if end else ""),
              "| rounds | %d |" % rounds, "| machine | %s × %s, %.0f GiB |" % (m.get("cores"), m.get("cpu"), m.get("memory_mib", 0) / 1024),
              "| system | %s, Linux %s |" % (m.get("system"), m.get("kernel")),
              "| load | %.1f at first, %.1f in the middle, %.1f at most |" % (loads[0], statistics.median(loads), max(loads)) if loads else "| load | |",
              *("| %s | %s |" % kv for kv in m.get("versions", {}).items() if kv[0] != "locald/notify")]
    with open(out, "w") as f: f.write("\n".join(lines) + "\n")
