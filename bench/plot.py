"""Plots as SVG, of the standard library alone. Each has a background of its own and follows the reader's light or dark scheme."""
import math
from xml.sax.saxutils import escape

LIGHT = dict(bg="#fff", ink="#1f2328", soft="#59636e", grid="#d9dee3", ours="#0969da", ours2="#8250df", peer="#afb8c1", miss="#cf4a02", goal="#1a7f37")
DARK = dict(bg="#0d1117", ink="#e6edf3", soft="#9198a1", grid="#2b323b", ours="#58a6ff", ours2="#bc8cff", peer="#555d67", miss="#f0883e", goal="#3fb950")

SHAPES = """text{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif}
.t{font-size:15px;font-weight:600}.s{font-size:11.5px}.e{text-anchor:end}.m{text-anchor:middle}.b{font-weight:600}
.l{fill:none!important;stroke-width:1.5}.l.ours,.l.ours2{stroke-width:2.5}.l.floor{stroke-dasharray:5 3}.goal{stroke-width:1.5;stroke-dasharray:4 3}"""


def colours(c):
    """Written out for each scheme: not every program that shows SVG knows variables."""
    fills = "text{fill:%(ink)s}.bg{fill:%(bg)s}.s{fill:%(soft)s}.floor{fill:%(ink)s}.l.floor{stroke:%(ink)s}.grid{stroke:%(grid)s}.goal{stroke:%(goal)s}" % c
    return fills + "".join(".%s{fill:%s}.l.%s{stroke:%s}" % (k, c[k], k, c[k]) for k in ("ours", "ours2", "peer", "miss"))


STYLE = "%s\n%s\n@media (prefers-color-scheme:dark){%s}" % (SHAPES, colours(LIGHT), colours(DARK))
FONT = 6.6      # of a character of 12 px, about


class Canvas:
    def __init__(self, width, height, title, subtitle):
        self.w, self.h, self.parts = width, height, []
        self.title = title
        self.text(16, 26, title, "t")
        self.text(16, 45, subtitle, "s")

    def text(self, x, y, what, cls=""): self.parts.append('<text x="%.1f" y="%.1f"%s>%s</text>' % (x, y, ' class="%s"' % cls if cls else "", escape(str(what))))

    def rect(self, x, y, w, h, cls, title=""):
        self.parts.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" class="%s">%s</rect>' % (
            x, y, max(w, 1.5), h, cls, "<title>%s</title>" % escape(title) if title else ""))

    def line(self, x1, y1, x2, y2, cls): self.parts.append('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>' % (x1, y1, x2, y2, cls))

    def path(self, points, cls):
        self.parts.append('<polyline points="%s" class="l %s"/>' % (" ".join("%.1f,%.1f" % p for p in points), cls))
        for x, y in points: self.parts.append('<circle cx="%.1f" cy="%.1f" r="2.6" class="%s"/>' % (x, y, cls))

    def svg(self):
        return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">\n<style>%s</style>\n'
                '<rect width="100%%" height="100%%" rx="8" class="bg"/>\n%s\n</svg>\n' % (
                    self.w, self.h, self.w, self.h, escape(self.title, {'"': "&quot;"}), STYLE, "\n".join(self.parts)))


def short(v):
    """A number with what matters of it."""
    if v == 0: return "0"
    if abs(v) < 10: return ("%.2g" if abs(v) < 1 else "%.1f") % v
    return "%d" % round(v) if v < 10000 else "%dk" % round(v / 1000)


class Log:
    """A logarithmic axis over the values, from and to pixels."""

    def __init__(self, values, a, b, pad=1.15):
        self.low, self.high = math.log10(min(values) / pad), math.log10(max(values) * pad)
        self.a, self.b = a, b

    def __call__(self, v): return self.a + (math.log10(v) - self.low) / (self.high - self.low) * (self.b - self.a)

    def ticks(self):
        """Powers of ten, with 2 and 5 between where there are few."""
        tens = range(math.floor(self.low), math.ceil(self.high) + 1)
        steps = (1, 2, 5) if self.high - self.low < 2 else (1,)
        return [m * 10.0 ** t for t in tens for m in steps if self.low <= math.log10(m * 10.0 ** t) <= self.high]


def overview(goals):
    """One bar a goal: how much of what it allows is used."""
    shown = [g for g in goals if g.of_goal]
    c = Canvas(820, 92 + 22 * len(shown), "Goals: how much of what each allows is used",
               "Left of the line, blue: reached. Right of it, orange: missed. On the right what was measured. Logarithmic.")
    x = Log([g.of_goal for g in shown] + [0.25, 2], 410, 700, 1)
    top, bottom = 62, 70 + 22 * len(shown)
    for t in x.ticks():
        c.line(x(t), top, x(t), bottom, "grid")
        c.text(x(t), bottom + 14, short(t) + " ×", "s m")
    for i, g in enumerate(shown):
        y = top + 6 + 22 * i
        c.text(16, y + 11, g.row, "b")
        work = g.work.replace("`", "")
        c.text(44, y + 11, work if len(work) < 58 else work[:56] + "…")
        a, z = sorted((x(max(g.of_goal, 10 ** x.low)), x(1)))
        c.rect(a, y + 1, z - a, 13, "ours" if g.reached else "miss", g.work)
        c.text(808, y + 11, short(g.value) + (" ×" if g.floor_name else " " + g.unit), "e s")
    c.line(x(1), top - 4, x(1), bottom, "goal")
    return c.svg()


def lines(title, subtitle, series, ylabel, xlabel, width=820, height=400):
    """series: [(name, class, [(n, value)])], both axes logarithmic, names at the right end of the lines."""
    series = [s for s in series if len(s[2]) > 0]
    c = Canvas(width, height, title, subtitle)
    panel(c, 62, 66, width - 190, height - 110, series, ylabel, xlabel)
    return c.svg()


def panel(c, left, top, w, h, series, ylabel, xlabel, names=True):
    x = Log([n for s in series for n, _ in s[2]], left, left + w, 1.05)
    y = Log([v for s in series for _, v in s[2]], top + h, top, 1.25)
    for t in y.ticks():
        c.line(left, y(t), left + w, y(t), "grid")
        c.text(left - 7, y(t) + 4, short(t), "s e")
    for n in sorted({n for s in series for n, _ in s[2]}): c.text(x(n), top + h + 17, n, "s m")
    c.text(left, top - 6, ylabel, "s")
    c.text(left + w, top + h + 32, xlabel, "s e")
    for _, cls, points in sorted(series, key=lambda s: ["peer", "floor", "ours2", "ours"].index(s[1])):
        c.path([(x(n), y(v)) for n, v in points], cls)
    if names: labels(c, left + w + 10, [(y(s[2][-1][1]), s[0], s[1]) for s in series], top, top + h)


def labels(c, x, wanted, top, bottom):
    """Names beside the ends of their lines, moved apart where they would meet."""
    wanted = sorted(wanted)
    at = [y for y, _, _ in wanted]
    for _ in range(200):
        moved = False
        for i in range(len(at) - 1):
            if at[i + 1] - at[i] < 14:
                middle = (at[i] + at[i + 1]) / 2
                at[i], at[i + 1], moved = middle - 7.05, middle + 7.05, True
        if not moved: break
    down = max(0, top - at[0]) if at else 0
    for y, (_, name, cls) in zip(at, wanted):
        c.text(x, y + down + 4, name, {"ours": "b ours", "ours2": "b ours2", "floor": "b"}.get(cls, "s"))


def small(title, subtitle, panels, width=820):
    """Four small plots, two beside each other: [(title, unit, [(name, class, points)])]."""
    c = Canvas(width, 68 + 232 * ((len(panels) + 1) // 2), title, subtitle)
    for i, (what, unit, series) in enumerate(panels):
        left, top = 62 + (i % 2) * 400, 92 + 232 * (i // 2)
        c.text(left - 46, top - 22, what, "b")
        panel(c, left, top, 300, 150, series, unit, "services", names=False)
    return c.svg()


def bars(title, subtitle, rows, unit):
    """rows: [(name, class, value, remark)], a length each, from nothing."""
    c = Canvas(820, 74 + 22 * len(rows), title, subtitle)
    widest = max((v for _, _, v, _ in rows), default=1)
    for i, (name, cls, value, remark) in enumerate(rows):
        y = 60 + 22 * i
        c.text(150, y + 12, name, "e" + (" b" if cls != "peer" else ""))
        length = 420 * value / widest
        c.rect(160, y + 1, length, 15, cls)
        c.text(168 + length, y + 12, "%s %s" % (short(value), unit))
        c.text(168 + length + FONT * len("%s %s" % (short(value), unit)) + 10, y + 12, remark, "s")
    return c.svg()
