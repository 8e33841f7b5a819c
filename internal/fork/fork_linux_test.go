//go:build linux && (amd64 || arm64)

package fork_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/locald/locald/internal/fork"
)

// TestMain makes the test binary a process that starts one program, for what a
// process is started with itself.
func TestMain(m *testing.M) {
	if script := os.Getenv("FORK_TEST_SCRIPT"); script != "" {
		s, err := fork.New()
		var pid int
		if err == nil {
			pid, err = s.Start(&fork.Program{Path: "/bin/sh", Argv: []string{"sh", "-c", script}, Files: []int{0, 1, 2}})
		}
		if err == nil {
			_, err = syscall.Wait4(pid, nil, 0, nil)
		}
		if err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func starter(t *testing.T) *fork.Starter {
	t.Helper()
	s, err := fork.New()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// null is what a program gets that is to read nothing.
func null(t testing.TB) int {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return int(f.Fd())
}

// says runs a program to its end and returns what it wrote.
func says(t *testing.T, s *fork.Starter, p *fork.Program) (text string, status syscall.WaitStatus, err error) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	p.Files = append([]int{null(t), int(write.Fd()), int(write.Fd())}, p.Files...)
	pid, err := s.Start(p)
	_ = write.Close()
	if err != nil {
		return "", 0, err
	}
	told, err := io.ReadAll(read) // ends once nobody has the other end, the slots included
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	return string(told), status, nil
}

func sh(script string) *fork.Program {
	return &fork.Program{Path: "/bin/sh", Argv: []string{"sh", "-c", script}}
}

// TestAProgramHasWhatItIsGiven, and nothing else of what the process has: no
// descriptors, no signals blocked, and none ignored that it does not ignore itself.
func TestAProgramHasWhatItIsGiven(t *testing.T) {
	s := starter(t)
	for range 100 { // more than there are slots
		fd, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0) // without close-on-exec
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := sh(`echo $(ls -l /proc/self/fd | sed -n 's/.* \([0-9]*\) -> .*/\1/p'); pwd; echo "$A$B"; echo "$(cut -d' ' -f1,6 /proc/$$/stat) $$"`)
	p.Dir, p.Env = dir, []string{"A=a", "B=b"}
	told, status, err := says(t, s, p)
	if err != nil || status != 0 {
		t.Fatal(err, status)
	}
	// Not of a shell, which blocks signals itself while it makes a child.
	signals, status, err := says(t, s, &fork.Program{Path: "/bin/grep", Argv: []string{"grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"}})
	if err != nil || status != 0 {
		t.Fatal(err, status)
	}
	of := strings.Split(strings.TrimSpace(told), "\n")
	if len(of) != 4 {
		t.Fatal(told)
	}
	lines := append(append(of[:3:3], strings.Split(strings.TrimSpace(signals), "\n")...), of[3])
	if len(lines) != 6 {
		t.Fatal(signals)
	}
	var pid, session, self int
	if _, err := fmt.Sscan(lines[5], &pid, &session, &self); err != nil || pid != session || pid != self {
		t.Errorf("process %q leads no session", lines[5])
	}
	if lines[0] != "0 1 2 3" { // the last is the directory that is listed
		t.Errorf("it has %s", lines[0])
	}
	if lines[1] != dir || lines[2] != "ab" {
		t.Errorf("it is in %s with %s", lines[1], lines[2])
	}
	if !strings.HasSuffix(lines[3], "\t0000000000000000") {
		t.Error(lines[3])
	}
	if ours, err := os.ReadFile("/proc/self/status"); err != nil || !strings.Contains(string(ours), lines[4]+"\n") {
		t.Errorf("%s is not what this process ignores (as under nohup), %v", lines[4], err)
	}
}

func TestMoreFiles(t *testing.T) {
	s := starter(t)
	names := make([]string, 0, fork.MaxFiles-3)
	p := sh(`for n in 3 4 5 6 7; do readlink /proc/$$/fd/$n; done`)
	for n := range fork.MaxFiles - 3 {
		f, err := os.Create(filepath.Join(t.TempDir(), fmt.Sprint(n)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		names, p.Files = append(names, f.Name()), append(p.Files, int(f.Fd()))
	}
	if told, _, err := says(t, s, p); err != nil || told != strings.Join(names, "\n")+"\n" {
		t.Errorf("got %q, %v; want %q", told, err, names)
	}
	if _, err := s.Start(&fork.Program{Path: "/bin/sh", Argv: []string{"sh"}, Files: make([]int, fork.MaxFiles+1)}); !errors.Is(err, syscall.E2BIG) {
		t.Errorf("too many: %v", err)
	}
}

// TestAFileThatIsNotThere: nothing holds on to the others.
func TestAFileThatIsNotThere(t *testing.T) {
	s := starter(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	_, err = s.Start(&fork.Program{Path: "/bin/sh", Argv: []string{"sh"}, Files: []int{int(write.Fd()), -1}})
	_ = write.Close()
	if !errors.Is(err, syscall.EBADF) {
		t.Errorf("got %v", err)
	}
	_ = read.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := read.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("whoever reads is told %v, and not of the end", err)
	}
}

func TestWhatCannotBeExecuted(t *testing.T) {
	s := starter(t)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o700); err != nil { //nolint:gosec // it is to be executed
		t.Fatal(err)
	}
	long := sh("true")
	long.Env = []string{"A=" + strings.Repeat("a", 4<<20)}
	lost := sh("true")
	lost.Dir = "/nowhere"
	for name, test := range map[string]struct {
		p    *fork.Program
		want error
	}{
		"missing":     {&fork.Program{Path: "/nowhere", Argv: []string{"x"}}, syscall.ENOENT},
		"a directory": {&fork.Program{Path: "/", Argv: []string{"x"}}, syscall.EACCES},
		"no program":  {&fork.Program{Path: empty, Argv: []string{"x"}}, syscall.ENOEXEC},
		"too long":    {long, syscall.E2BIG},
		"no place":    {lost, syscall.ENOENT},
		"NUL":         {&fork.Program{Path: "/bin/sh\x00", Argv: []string{"x"}}, syscall.EINVAL},
	} {
		if _, _, err := says(t, s, test.p); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
		t.Errorf("a child is left: %v", err)
	}
}

// TestOpenFiles: a program may open as many files as the process was allowed to
// when it was started, and not what package os made of that.
func TestOpenFiles(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", `ulimit -S -n 300; exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), "FORK_TEST_SCRIPT=ulimit -S -n; ulimit -H -n")
	told, err := cmd.CombinedOutput()
	var soft, hard int
	if _, e := fmt.Sscan(string(told), &soft, &hard); err != nil || e != nil || soft != 300 || hard <= 300 {
		t.Errorf("%s, %v", told, err)
	}
}

// TestUnderWay starts programs while the runtime collects, switches and grows
// stacks, and signals come.
func TestUnderWay(t *testing.T) {
	s := starter(t)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	defer busy.Wait()
	defer close(stop)
	for range 3 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					goruntime.GC()
					_ = syscall.Kill(os.Getpid(), syscall.SIGURG)
					_ = strings.Repeat("x", 100_000)
				}
			}
		})
	}
	for n := range 200 {
		want := fmt.Sprint("program ", n)
		p := &fork.Program{Path: "/bin/echo", Argv: []string{"echo", want}, Env: []string{"A=" + strings.Repeat("a", n)}}
		if n%10 == 9 {
			p.Path = "/nowhere"
		}
		told, status, err := says(t, s, p)
		if n%10 == 9 {
			if !errors.Is(err, syscall.ENOENT) {
				t.Fatal(n, err)
			}
			continue
		}
		if err != nil || status != 0 || told != want+"\n" {
			t.Fatalf("%d: %q, %v, %v", n, told, status, err)
		}
	}
}

func BenchmarkStart(b *testing.B) {
	null := null(b)
	for _, open := range []int{0, 2000} {
		for name, start := range map[string]func(s *fork.Starter) (int, error){
			"this": func(s *fork.Starter) (int, error) {
				return s.Start(&fork.Program{Path: "/bin/true", Argv: []string{"true"}, Files: []int{null, null, null}})
			},
			"syscall": func(*fork.Starter) (int, error) {
				files := []uintptr{uintptr(null), uintptr(null), uintptr(null)}
				return syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{Files: files, Sys: &syscall.SysProcAttr{Setsid: true}})
			},
		} {
			b.Run(fmt.Sprintf("%s/%d", name, open), func(b *testing.B) {
				s, err := fork.New()
				if err != nil {
					b.Fatal(err)
				}
				var fds []int
				for range open / 2 {
					var p [2]int
					if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
						b.Fatal(err)
					}
					fds = append(fds, p[:]...)
				}
				defer func() {
					for _, fd := range fds {
						_ = syscall.Close(fd)
					}
				}()
				for b.Loop() {
					pid, err := start(s)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
