package system

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/locald/locald/internal/sockets"
)

// listens is where a process listens: TCP addresses, and paths of sockets.
func listens(t *testing.T, pid int) (tcp []netip.AddrPort, paths []string) {
	t.Helper()
	inodes, err := sockets.Inodes(pid)
	if err != nil {
		t.Fatal(err)
	}
	all, err := sockets.Listening()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if inodes[one.Inode] {
			tcp = append(tcp, one.Addr)
		}
	}
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.Fields(line)
		const accepts = "00010000"
		if len(fields) < 7 || fields[3] != accepts || !inodes[uint64(number(t, fields[6]))] {
			continue
		}
		paths = append(paths, strings.Join(fields[7:], " "))
	}
	return tcp, paths
}

// TestListensOnItsSocketAlone: the daemon is reached by its Unix socket and by
// nothing else. What it has on TCP leads containers of a project, from the
// gateway of their own network, to the ports of services of that project.
func TestListensOnItsSocketAlone(t *testing.T) {
	promise(t, "P17", "S4")
	text := `[project]
name = "surface"

[services.web]
command = ["$PROGRAM", "once", "web.notes"]
`
	if engine() {
		text += `
[services.box]
image = "locald-test/shell:1"
command = ["sleep", "1000"]
stop_signal = "SIGKILL"
`
	}
	s := newSandbox(t, config(text))
	s.run("up")
	status := s.status()
	running(t, status)
	keeper := s.keeper(status.Daemon.PID)
	tcp, paths := listens(t, status.Daemon.PID)
	if want := []string{s.places().Socket}; !slices.Equal(paths, want) {
		t.Errorf("the daemon listens at %q, want %q", paths, want)
	}
	var gateways []string
	if engine() {
		for _, id := range strings.Fields(s.docker("network", "ls", "-q", "--filter", "label=dev.locald.instance="+s.instance())) {
			gateways = append(gateways, strings.Fields(s.docker("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Gateway}} {{end}}", id))...)
		}
	}
	for _, at := range tcp {
		if !slices.Contains(gateways, at.Addr().String()) || int(at.Port()) != of(status, "web").Port {
			t.Errorf("the daemon listens at %v; the gateways of its networks are %v, and web is at %d", at, gateways, of(status, "web").Port)
		}
	}
	t.Logf("the daemon listens at %q and %v, the keeper at nothing", paths, tcp)
	if tcp, paths := listens(t, keeper); len(tcp)+len(paths) > 0 {
		t.Errorf("the keeper listens at %v %q", tcp, paths)
	}
}

// TestNothingCommandsTheTerminal: whatever names, paths, output and errors hold,
// nothing that locald prints moves a cursor, sets a title, reaches the clipboard
// or turns text around. What another program is to read is left as it is: logs
// --raw, and env that goes into a pipe.
func TestNothingCommandsTheTerminal(t *testing.T) {
	promise(t, "P13", "F58", "S20")
	const evil = "\x1b]0;title\x07\x1b[2J\u009b31m\u202e\x1b]52;c;ZWNobw==\x1b\\\x1bP1$q\x1b\\"
	s := newSandbox(t, "")
	s.dir = filepath.Join(s.root, "dir"+strings.ReplaceAll(evil, "/", ""))
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	escaped := strings.ReplaceAll(fmt.Sprintf("%+q", evil), `\x`, `\u00`)
	escaped = strings.ReplaceAll(escaped, `\a`, `\u0007`)
	escaped = escaped[1 : len(escaped)-1]
	good := fmt.Sprintf(`[services.web]
command = ["printf", "%%s\\n", "%[1]s"]
env = { X = "%[1]s" }
type = "task"

[services.missing]
command = ["/no/such/%[1]s"]

[services.noisy]
command = ["sh", "-c", "printf '%%s\\n' \"$0\" >&2; exit 3", "%[1]s"]
max_restarts = 0

[services.workdir]
command = "true"
workdir = "%[1]s"
`, escaped)
	commands := [][]string{
		{"up"},
		{"status"},
		{"status", "--all"},
		{"status", "--history", "noisy"},
		{"logs"},
		{"logs", "--no-prefix", "-t"},
		{"config", "show"},
		{"config", "check"},
		{"stop", "web" + evil},
		{"logs", "--grep", "(" + evil},
		{"run", "web", "--", "/no/such/" + evil},
		{"doctor"},
		{"server", "status"},
		{evil},
		{"up", "--" + evil},
		{"down"},
	}
	printed := 0
	for i, text := range []string{
		good,
		fmt.Sprintf("[project]\nname = \"%s\"\n", escaped),
		fmt.Sprintf("[services.\"%s\"]\ncommand = \"x\"\n", escaped),
		fmt.Sprintf("[services.web]\n\"%s\" = 1\n", escaped),
		fmt.Sprintf("[services.web]\nimage = \"%s\"\n", escaped),
		fmt.Sprintf("[services.web]\ncommand = \"x ${services.%s.url}\"\n", escaped),
		"[services.web]\ncommand = \"x\"\n" + evil + "\n",
	} {
		s.write("locald.toml", text)
		for _, command := range commands {
			if i > 0 && command[0] != "up" && command[0] != "config" && command[0] != "status" {
				continue
			}
			r := s.try(command...)
			for where, output := range map[string]string{"stdout": r.stdout, "stderr": r.stderr} {
				printed += len(output)
				if !utf8.ValidString(output) {
					t.Errorf("file %d, locald %q: %s is not UTF-8: %q", i, command, where, output)
				}
				for at, c := range output {
					if c != '\n' && c != '\t' && unicode.IsControl(c) || unicode.In(c, unicode.Bidi_Control) {
						t.Errorf("file %d, locald %q: %s has %U: %q", i, command, where, c, output[max(0, at-60):min(len(output), at+40)])
						break
					}
				}
			}
		}
	}
	if printed < 1000 {
		t.Errorf("only %d bytes were printed", printed)
	}
}
