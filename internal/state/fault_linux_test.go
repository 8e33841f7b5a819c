package state

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/runtime"
)

// writeVar makes the test binary a process that writes a file until it is
// killed, or so often.
const writeVar = "STATE_TEST_WRITE"

func TestMain(m *testing.M) {
	if path := os.Getenv(writeVar); path != "" {
		os.Exit(write(path))
	}
	os.Exit(m.Run())
}

// write writes numbers, and says each before it is written and when it is.
func write(path string) int {
	if filepath.Base(path) == InstanceFile {
		return settle(Store{Dir: filepath.Dir(path)})
	}
	size, _ := strconv.Atoi(os.Getenv("STATE_TEST_SIZE"))
	times, _ := strconv.Atoi(os.Getenv("STATE_TEST_TIMES"))
	for n := 1; times == 0 || n <= times; n++ {
		fmt.Println(n)
		err := Write(path, numbered{Format, n, strings.Repeat(string(rune('a'+n%26)), size)}, Care{Power: true, Previous: true})
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("written")
	}
	return 0
}

// settle makes an identity and has it survive a power cut.
func settle(s Store) int {
	_, err := s.Owner()
	if err == nil {
		err = s.Settle()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("written")
	return 0
}

type numbered struct {
	Format int    `json:"format"`
	N      int    `json:"n"`
	Fill   string `json:"fill"`
}

// valid tells a whole one from any that is not.
func (n *numbered) valid() error {
	if strings.Trim(n.Fill, string(rune('a'+n.N%26))) != "" || n.N < 1 {
		return errors.New("mixed")
	}
	return nil
}

func writer(t *testing.T, path string, size, times int, before ...string) *exec.Cmd {
	t.Helper()
	argv := append(before, os.Args[0])
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), writeVar+"="+path, "STATE_TEST_SIZE="+strconv.Itoa(size), "STATE_TEST_TIMES="+strconv.Itoa(times))
	return cmd
}

// TestKilledWhileWriting kills a writer at random instants. The file is always
// one that was written, whole: the one before the kill or the one it was at.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	kills, failures := 60, 0
	if os.Getenv("LOCALD_TEST_FULL") == "1" {
		kills = 1000
	}
	path := filepath.Join(t.TempDir(), "p.json")
	inside := 0
	for range kills {
		began, done, err := kill(t, path)
		if err != nil {
			t.Fatal(err)
		}
		var now, before numbered
		switch err := Read(path, &now); {
		case done == 0 && errors.Is(err, fs.ErrNotExist):
		case err != nil || now.N != began && now.N != done:
			t.Errorf("killed in write %d: the file is number %d: %v", began, now.N, err)
			failures++
		}
		if err := Read(previous(path), &before); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("killed in write %d: the copy before it: %v", began, err)
			failures++
		}
		if began != done {
			inside++
		}
		if err := errors.Join(remove(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) > 3 { // one of each kind at most, however many kills
		t.Errorf("left behind: %v, %v", left, err)
	}
	if inside < kills/2 {
		t.Errorf("only %d of %d kills came while it wrote", inside, kills)
	}
	t.Attr("promise", "P14 F61")
	t.Attr("runs", strconv.Itoa(kills))
	t.Attr("failures", strconv.Itoa(failures))
}

// kill runs a writer for a few writes, and says which it had begun and which
// it had done when it was killed.
func kill(t *testing.T, path string) (began, done int, err error) {
	cmd := writer(t, path, 1<<20, 0)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		return 0, 0, errors.New("it does not begin")
	}
	began = 1
	timer := time.AfterFunc(rand.N(60*time.Millisecond), func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	for lines.Scan() {
		if lines.Text() == "written" {
			done = began
			continue
		}
		if began, err = strconv.Atoi(lines.Text()); err != nil {
			return 0, 0, errors.New(lines.Text())
		}
	}
	_ = cmd.Wait() // it was killed
	return began, done, nil
}

// straced runs the writer under strace and returns what that wrote.
func straced(t *testing.T, path string, times int, options ...string) (trace, out string) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace")
	}
	log := filepath.Join(t.TempDir(), "trace")
	cmd := writer(t, path, 10, times, append([]string{"strace", "-f", "-y", "-o", log}, options...)...)
	printed, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil || bytes.Contains(printed, []byte("ptrace(PTRACE_")) {
		t.Skipf("strace cannot trace here: %s", printed)
	}
	return string(text), string(printed)
}

// TestTheOrderThatAPowerCutNeeds: the content is on the disk before the name,
// and the name is before the answer.
func TestTheOrderThatAPowerCutNeeds(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P14 F62")
	dir := t.TempDir()
	path := filepath.Join(dir, "p.json")
	trace, out := straced(t, path, 3, "-e", "trace=fsync,fdatasync,rename,renameat,renameat2,linkat,write")
	if strings.Count(out, "written") != 3 {
		t.Fatal(out)
	}
	quoted := regexp.QuoteMeta
	// A call that strace tells of in two lines is told of once by its beginning.
	// That it succeeded is said by the answer.
	steps := []struct {
		name string
		call *regexp.Regexp
	}{
		{"announce", regexp.MustCompile(`write\(1<.*"\d+\\n"`)},
		{"content", regexp.MustCompile(`write\(\d+<` + quoted(dir+"/.p.json.new") + `>`)},
		{"sync file", regexp.MustCompile(`fsync\(\d+<` + quoted(dir+"/.p.json.new") + `>`)},
		{"keep", regexp.MustCompile(`rename.*"` + quoted(dir+"/.p.json.previous.link") + `".*"` + quoted(path+".previous") + `"`)},
		{"rename", regexp.MustCompile(`rename.*"` + quoted(dir+"/.p.json.new") + `".*"` + quoted(path) + `"`)},
		{"sync directory", regexp.MustCompile(`fsync\(\d+<` + quoted(dir) + `>`)},
		{"answer", regexp.MustCompile(`write\(1<.*"written`)},
	}
	var got []string
	for line := range strings.Lines(trace) {
		for _, step := range steps {
			if step.call.MatchString(line) {
				got = append(got, step.name)
			}
		}
	}
	first := []string{"announce", "content", "sync file", "rename", "sync directory", "answer"}
	later := []string{"announce", "content", "sync file", "keep", "rename", "sync directory", "answer"}
	if want := slices.Concat(first, later, later); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v\n%s", got, want, trace)
	}
}

// TestAnIdentityIsSettled: content and name are on the disk before the answer,
// and when they cannot be, that is the answer.
func TestAnIdentityIsSettled(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P14 F62 F64")
	for _, test := range []struct {
		name, inject, says string
		syncs              []string
	}{
		{"whole", "", "written", []string{InstanceFile, ""}},
		{"sync of the file", InstanceFile, "input/output error", nil},
		{"sync of the directory", "", "input/output error", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			options := []string{"-e", "trace=fsync"}
			if test.syncs == nil {
				options = append(options, "-P", filepath.Join(dir, test.inject), "-e", "inject=fsync:error=EIO")
			}
			trace, out := straced(t, filepath.Join(dir, InstanceFile), 1, options...)
			if !strings.Contains(out, test.says) || test.syncs == nil && (strings.Contains(out, "written") || !strings.Contains(trace, "(INJECTED)")) {
				t.Errorf("it said %q\n%s", out, trace)
			}
			for _, name := range test.syncs {
				var found bool
				if _, trace, found = strings.Cut(trace, "<"+filepath.Join(dir, name)+">"); !found {
					t.Errorf("%q is not synced in turn", name)
				}
			}
		})
	}
}

// TestErrorsOfTheDisk: when any of the calls fails, so does the write, and the
// file is the one before it.
func TestErrorsOfTheDisk(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P14 F63 F64")
	dir := t.TempDir()
	for name, test := range map[string]struct{ call, errno, says string }{
		"write, I/O error":                {"write", "EIO", "input/output error"},
		"write, full":                     {"write", "ENOSPC", "disk full"},
		"write, quota":                    {"write", "EDQUOT", "disk full"},
		"sync of the file":                {"fsync", "EIO", "input/output error"},
		"sync of the file, full":          {"fsync", "ENOSPC", "disk full"},
		"sync of the directory":           {"fsync", "EIO", "input/output error"},
		"close, I/O error":                {"close", "EIO", "input/output error"},
		"close, full":                     {"close", "ENOSPC", "disk full"},
		"rename":                          {"renameat", "ENOSPC", "disk full"},
		"the file cannot be made":         {"openat", "EROFS", "read-only file system"},
		"the file cannot be made: denied": {"openat", "EACCES", "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := filepath.Join(dir, strings.NewReplacer(" ", "-", ",", "", ":", "").Replace(name))
			path := filepath.Join(sub, "p.json")
			good := numbered{Format, 26, "a"}
			for range 2 {
				if err := Write(path, good, Care{Previous: true}); err != nil {
					t.Fatal(err)
				}
			}
			at := filepath.Join(sub, ".p.json.new")
			if name == "sync of the directory" {
				at = sub
			}
			trace, out := straced(t, path, 1, "-P", at, "-e", "trace="+test.call, "-e", "inject="+test.call+":error="+test.errno)
			if !strings.Contains(trace, "(INJECTED)") {
				t.Fatalf("nothing was injected: %s", trace)
			}
			if !strings.Contains(out, test.says) || strings.Contains(out, "written") {
				t.Errorf("the write said %q", out)
			}
			var now numbered
			if err := Read(path, &now); err != nil || now != good {
				t.Errorf("it was %+v and is %+v, %v", good, now, err)
			}
			if err := Write(path, numbered{Format, 27, "b"}, Care{Previous: true}); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// TestAFullDisk is the same with a disk that is.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P14 F63")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skipf("a small disk cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		// A child that another test forks at this moment has what is open here
		// until its exec, so the disk is busy for as long.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "p.json")
	good := numbered{Format, 26, strings.Repeat("a", 5000)}
	if err := Write(path, good, Care{Power: true, Previous: true}); err != nil {
		t.Fatal(err)
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	if _, err := io.Copy(filler, io.LimitReader(zeros{}, 1<<20)); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	for range 10 {
		err := Write(path, numbered{Format, 27, strings.Repeat("b", 9000)}, Care{Power: true, Previous: true})
		var fault *runtime.Fault
		if !errors.As(err, &fault) || fault.Code != "disk_full" || fault.Hint != "df -h "+dir {
			t.Fatalf("got %v, %+v", err, fault)
		}
		var now numbered
		if err := Read(path, &now); err != nil || now != good {
			t.Fatalf("the old one: %v", err)
		}
	}
	if err := filler.Truncate(0); err != nil { // unlike its removal, this makes room whoever has it open
		t.Fatal(err)
	}
	if err := Write(path, numbered{Format, 27, strings.Repeat("b", 9000)}, Care{Power: true, Previous: true}); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
