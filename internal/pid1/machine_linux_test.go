package pid1

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNetworks(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		w.newBox(t, "tail -n +3 /proc/net/dev | cut -d: -f1; cat /sys/class/net/lo/operstate").want("    lo\nunknown\n", 0) // is how it is up

		own, err := os.ReadFile("/proc/net/dev")
		if err != nil {
			t.Fatal(err)
		}
		b := w.newBox(t, `cut -d: -f1 /proc/net/dev; ls /sys/class/net >/dev/null; touch /sys/x 2>/dev/null || echo no sysfs`)
		b.spec.HostNetwork = true
		var names strings.Builder
		for line := range strings.Lines(string(own)) {
			name, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			fmt.Fprintln(&names, name)
		}
		out, _ := b.start().output()
		// Others may make interfaces meanwhile, and lo is always there.
		if !strings.HasPrefix(out, strings.Join(strings.SplitAfter(names.String(), "\n")[:2], "")) || !strings.Contains(out, "    lo\n") || !strings.HasSuffix(out, "no sysfs\n") {
			t.Errorf("%s, and the host has\n%s", out, names.String())
		}

		b = w.newBox(t, "exec /self ask")
		b.spec.Network = json.RawMessage(`{"say":"dear"}`)
		b.want("hello, dear\n", 0)
	})
}

func TestAContainerEndsWithItsNetwork(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, `/self ask & trap "" TERM; sleep 1000`)
		b.spec.Network = json.RawMessage(`{"fail":"the cable is cut"}`)
		out, code := b.start().output()
		if out != "" || code != ExitFailed || b.stderr.String() != "locald: container: network of the container: the cable is cut\n" {
			t.Errorf("%q, %d; it says %s", out, code, b.stderr.String())
		}
		if err := Ready(t.Context(), b.dir); err != nil {
			t.Errorf("it had begun: %v", err)
		}
	})
}

func TestManyLayersWithOddNames(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "cat /which; ls /n | wc -l")
		var layers []string
		for n := range 150 {
			dir := filepath.Join(b.base, fmt.Sprintf("a long name, with: what \\ options \"are written with %d", n))
			b.write(filepath.Join(dir, "which"), fmt.Sprintln(n))
			b.write(filepath.Join(dir, "n", strconv.Itoa(n)), "")
			layers = append(layers, dir)
		}
		w.own(t, b.base)
		b.spec.Layers = append(layers, b.spec.Layers...)
		b.want("0\n150\n", 0)
	})
}

func TestAnImageWithoutLayers(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "")
		b.spec.Layers = nil
		b.spec.Args = []string{"/bin/pwd"}
		b.spec.Workdir = "/made"
		for _, name := range []string{"bin", "lib", "lib64"} {
			b.spec.Mounts = append(b.spec.Mounts, Mount{Source: "/usr/" + name, Target: "/" + name})
		}
		b.want("/made\n", 0)
	})
}

// What a container leaves can be deleted by whose it was.
func TestNothingIsLeft(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "mkdir -p /srv/a/b; touch /srv/a/b/c; chmod 000 /srv/a/b /srv/a; mkdir /srv/full; chmod 500 /srv/full")
		b.want("", 0)
		line := append(append([]string{}, w.command...), copyOfTest, "remove", b.dir)
		// Its parent is the user's too.
		if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if _, err := os.Lstat(b.dir); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if err := Remove(b.dir); err != nil {
			t.Errorf("again: %v", err)
		}
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil || bytes.Contains(mounts, []byte(b.base)) {
			t.Errorf("%v, %s", err, mounts)
		}
	})
}

func TestReadyWaits(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "exec sleep 1000")
		pipe := b.waitForNetwork()
		b.start()
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error)
		go func() { got <- Ready(ctx, b.dir) }()
		hold, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-got:
			t.Errorf("ready before it is made: %v", err)
		default:
		}
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		hold.Close()
		b.ready()
	})
}

func TestADirectoryIsForOneRun(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "exit 0")
		b.want("", 0)
		again := *b
		again.exited, again.stderr = make(chan struct{}), bytes.Buffer{}
		if _, code := again.start().output(); code != ExitFailed || !strings.HasSuffix(again.stderr.String(), "is another container's\n") || strings.Count(again.stderr.String(), "\n") != 1 {
			t.Errorf("%d; it says %s", code, again.stderr.String())
		}
		if err := Ready(t.Context(), b.dir); err != nil {
			t.Errorf("the first one had begun: %v", err)
		}
	})
}

func TestSupported(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "")
		line := append(append([]string{}, w.command...), copyOfTest, "supported", b.dir)
		out, err := exec.Command(line[0], line[1:]...).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%v: %s", err, out)
		}
		if left, err := os.ReadDir(b.dir); err != nil || len(left) > 0 {
			t.Errorf("%v is left, %v", left, err)
		}
	})
}

// A machine without user namespaces is one of which they are turned off; that
// can be done in a user namespace for what is in it.
func TestNotSupported(t *testing.T) {
	t.Parallel()
	w, ok := ordinary(t)
	if !ok || os.Geteuid() != 0 {
		t.Skip("not root")
	}
	b := w.newBox(t, "")
	script := `echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"`
	cmd := exec.Command("sh", append(append([]string{"-c", script, "sh"}, w.command...), copyOfTest, "supported", b.dir)...)
	all := []syscall.SysProcIDMap{{Size: 1 << 30}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true}
	out, err := cmd.CombinedOutput()
	want := "namespaces: user namespaces are turned off\nhint: sudo sysctl -w user.max_user_namespaces=15000\n"
	if err == nil || string(out) != want {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWhyForbidden(t *testing.T) {
	t.Parallel()
	const user = 1000
	for _, test := range []struct {
		name      string
		err       error
		uid       int
		setting   string
		why, hint string
	}{
		{"turned off", unix.ENOSPC, user, "user.max_user_namespaces=0", "user namespaces are turned off", "sudo sysctl -w user.max_user_namespaces=15000"},
		{"Debian's switch", unix.EPERM, user, "kernel.unprivileged_userns_clone=0", "user namespaces are for root only", "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		{"Ubuntu's AppArmor", unix.EACCES, user, "kernel.apparmor_restrict_unprivileged_userns=1", "AppArmor lets only programs that it knows use user namespaces", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"AppArmor does not mind root", unix.EPERM, 0, "kernel.apparmor_restrict_unprivileged_userns=1", "it is not permitted, as is so inside of most containers", "docker run --privileged"},
		{"in a container", unix.EPERM, user, "", "it is not permitted, as is so inside of most containers", "docker run --privileged"},
		{"too many", unix.ENOSPC, user, "user.max_user_namespaces=9", "there are as many namespaces as are allowed, or they are nested too deeply", "sysctl user"},
		{"an old kernel", unix.ENOSYS, 0, "", "the kernel does not have it: function not implemented", "Linux 5.12 or later, with user namespaces and seccomp"},
		{"anything else", unix.ENOMEM, user, "", "cannot allocate memory", ""},
	} {
		sysctl := func(name string) string {
			value, _ := strings.CutPrefix(test.setting, name+"=")
			if value == test.setting {
				return ""
			}
			return value
		}
		if why, hint := whyForbidden(test.err, test.uid, sysctl); why != test.why || hint != test.hint {
			t.Errorf("%s: %q, %q", test.name, why, hint)
		}
	}
}

// decision runs a filter as the kernel does.
func decision(t *testing.T, program []unix.SockFilter, arch, number uint32, args ...uint64) uint32 {
	t.Helper()
	var a uint32
	for pc := 0; pc < len(program); pc++ {
		in := program[pc]
		jumps := func(holds bool) {
			if holds {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			switch in.K {
			case offsetNumber:
				a = number
			case offsetArch:
				a = arch
			default:
				argument := args[(in.K-offsetArgs)/8]
				if high := in.K%8 != 0; high != bigEndian {
					argument >>= 32
				}
				a = uint32(argument)
			}
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JEQ:
			jumps(a == in.K)
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JGT:
			jumps(a > in.K)
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JGE:
			jumps(a >= in.K)
		case unix.BPF_JMP | unix.BPF_K | unix.BPF_JSET:
			jumps(a&in.K != 0)
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("instruction %d: %+v", pc, in)
		}
	}
	t.Fatal("the filter decides nothing")
	return 0
}

// The calls of every machine are decided as the profile says.
func TestSystemCalls(t *testing.T) {
	t.Parallel()
	for goarch, own := range allowances {
		program, err := filter(goarch)
		if err != nil {
			t.Fatal(err)
		}
		if len(program) > 4096 {
			t.Errorf("%s: %d instructions are more than the kernel takes", goarch, len(program))
		}
		kinds := []allowance{own}
		if other, ok := allowances[others[goarch]]; ok {
			kinds = append(kinds, other)
		}
		for _, a := range kinds {
			special := []uint32{a.clone, a.clone3, a.personality, a.socket}
			newest := a.always[len(a.always)-1].last
			for _, n := range edges(a.always) {
				want := refuse
				switch {
				case slices.Contains(special, n):
					continue
				case n > newest:
					want = unknown
				case contains(a.always, n):
					want = allow
				}
				if got := decision(t, program, a.arch, n, 1<<40, 1<<40); got != want {
					t.Fatalf("%s: call %d of machine %x: %x, want %x", goarch, n, a.arch, got, want)
				}
			}
			flags := func(f uint64) []uint64 {
				if a.arch == unix.AUDIT_ARCH_S390X {
					return []uint64{0, f}
				}
				return []uint64{f, 0}
			}
			for _, test := range []struct {
				number uint32
				args   []uint64
				want   uint32
			}{
				{a.clone, flags(uint64(unix.SIGCHLD)), allow},
				{a.clone, flags(unix.CLONE_NEWNET | unix.CLONE_VM), refuse},
				{a.clone3, flags(0), unknown},
				{a.socket, []uint64{unix.AF_INET, 0}, allow},
				{a.socket, []uint64{unix.AF_VSOCK, 0}, refuse},
				{a.socket, []uint64{unix.AF_INET | 1<<32, 0}, refuse},
				{a.personality, []uint64{0xffffffff, 0}, allow},
				{a.personality, []uint64{0x400000, 0}, refuse},
			} {
				if got := decision(t, program, a.arch, test.number, test.args...); got != test.want {
					t.Errorf("%s: call %d of machine %x with %x: %x, want %x", goarch, test.number, a.arch, test.args, got, test.want)
				}
			}
		}
		if got := decision(t, program, 1, 1); got != unknown {
			t.Errorf("%s: another machine: %x", goarch, got)
		}
	}
}

// edges are the numbers at the ends of spans, inside and outside.
func edges(spans []span) (all []uint32) {
	for _, s := range spans {
		all = append(all, s.first, s.last, s.last+1)
		if s.first > 0 {
			all = append(all, s.first-1)
		}
	}
	return all
}

func contains(spans []span, n uint32) bool {
	for _, s := range spans {
		if s.first <= n && n <= s.last {
			return true
		}
	}
	return false
}

// BenchmarkStart measures from the start of the outer process to the program's
// first byte.
func BenchmarkStart(b *testing.B) {
	everyone := []who{{name: "user", user: os.Geteuid()}}
	if os.Geteuid() == 0 {
		everyone = []who{{name: "root", rootful: true}}
		if w, ok := ordinary(b); ok {
			everyone = append(everyone, w)
		}
	}
	for _, w := range everyone {
		b.Run(w.name, func(b *testing.B) {
			var took []time.Duration
			for range b.N {
				c := w.newBox(b, "echo; read x")
				began := time.Now()
				c.start().line()
				took = append(took, time.Since(began))
				c.output()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
			b.ReportMetric(float64(took[0].Microseconds())/1000, "fastest-ms")
			b.ReportMetric(0, "ns/op") // it would count the preparations
		})
	}
}
