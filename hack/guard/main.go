// Command guard counts what makes locald slow and does not depend on the machine,
// and fails when one of the counts has grown by more than a tenth:
//
//	make build && go run ./hack/guard
//
// -accept writes the counts down as those that are accepted.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// file has the accepted counts: a name and a number a line.
const file = "hack/guard/counts.txt"

// count is one thing that is counted.
type count struct {
	name string
	of   func(locald string) (int, error)
	room int // that it may grow by in any case, beside the tenth
}

var counts = []count{
	{"allocations-a-transition", allocations("./supervisor", "BenchmarkTransitions"), 0},
	{"allocations-a-line", allocations("./internal/logs", "BenchmarkAppend/line"), 0},
	{"packages-initialised-before-status", initialised, 0},
	{"calls-for-a-mebibyte-stored", least(5, storing), 10},
	{"wake-ups-in-ten-idle-seconds", idle, 10},
	{"kilobytes-of-program", size, 0},
}

func main() {
	accept := flag.Bool("accept", false, "write the counts down as accepted")
	locald := flag.String("locald", "locald", "the program, as make build makes it")
	flag.Parse()
	program, err := filepath.Abs(*locald)
	if err == nil {
		err = run(program, *accept)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
		os.Exit(1)
	}
}

func run(locald string, accept bool) error {
	text, accepted, err := read()
	if err != nil {
		return err
	}
	var grown []string
	found := map[string]int{}
	for _, c := range counts {
		n, err := c.of(locald)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		found[c.name] = n
		was, known := accepted[c.name]
		most := was + max(was/10, c.room)
		fmt.Printf("%-38s %8d  (accepted %d, at most %d)\n", c.name, n, was, most)
		if !known || n > most {
			grown = append(grown, c.name)
		}
	}
	if accept {
		return write(text, found)
	}
	if len(grown) > 0 {
		return fmt.Errorf("more than a tenth above what is accepted: %s\nhint: bring it back; or go run ./hack/guard -accept, and say why in bench/notes.md", strings.Join(grown, ", "))
	}
	return nil
}

// read gives the comment of the file, and its counts.
func read() (comment string, accepted map[string]int, err error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", nil, err
	}
	accepted = map[string]int{}
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "#") {
			comment += line
			continue
		}
		fields := strings.Fields(line)
		if len(fields) != 2 {
			return "", nil, fmt.Errorf("%s: %q is not a name and a number", file, line)
		}
		if accepted[fields[0]], err = strconv.Atoi(fields[1]); err != nil {
			return "", nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return comment, accepted, nil
}

func write(comment string, found map[string]int) error {
	for _, c := range counts {
		comment += fmt.Sprintf("%s %d\n", c.name, found[c.name])
	}
	return os.WriteFile(file, []byte(comment), 0o644)
}

var perOp = regexp.MustCompile(`(\d+) allocs/op`)

// allocations is those of one operation of a benchmark.
func allocations(room, benchmark string) func(string) (int, error) {
	return func(string) (int, error) {
		out, err := exec.Command("go", "test", "-run", "^$", "-bench", "^"+strings.ReplaceAll(benchmark, "/", "$/^")+"$", "-benchmem", "-benchtime", "2000x", room).CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("%w: %s", err, out)
		}
		found := perOp.FindSubmatch(out)
		if found == nil {
			return 0, fmt.Errorf("no allocs/op in: %s", out)
		}
		return strconv.Atoi(string(found[1]))
	}
}

func size(locald string) (int, error) {
	info, err := os.Stat(locald)
	if err != nil {
		return 0, err
	}
	return int(info.Size() / 1000), nil
}

// initialised is the packages that the program has initialised when it begins to
// do what its arguments say.
func initialised(locald string) (int, error) {
	cmd := exec.Command(locald, "version")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var trace bytes.Buffer
	cmd.Stderr = &trace
	if err := cmd.Run(); err != nil {
		return 0, err
	}
	n := 0
	for line := range strings.Lines(trace.String()) {
		if strings.HasPrefix(line, "init ") {
			n++
		}
	}
	if n == 0 {
		return 0, errors.New("nothing was traced")
	}
	return n, nil
}

// project is a project in a sandbox of its own.
type project struct{ locald, dir string }

// with runs a project while f looks at it.
func with(locald, config string, f func(p project, daemon, keeper int) (int, error)) (n int, err error) {
	dir, err := os.MkdirTemp("", "guard-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	p := project{locald, dir}
	if err := os.WriteFile(filepath.Join(dir, "locald.toml"), []byte(config), 0o600); err != nil {
		return 0, err
	}
	defer func() {
		if stopped := p.run("server", "stop"); stopped != nil {
			err = errors.Join(err, stopped)
		}
	}()
	if err := p.run("up", "--detach"); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "data/locald/sandboxes/guard/locald.pid"))
	if err != nil {
		return 0, err
	}
	daemon, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, err
	}
	keeper, err := keeperOf(daemon)
	if err != nil {
		return 0, err
	}
	return f(p, daemon, keeper)
}

func (p project) run(args ...string) error {
	cmd := exec.Command(p.locald, append([]string{"--sandbox", "guard", "-C", p.dir}, args...)...)
	cmd.Env = p.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("locald %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (p project) env() []string {
	return append(os.Environ(), "XDG_DATA_HOME="+filepath.Join(p.dir, "data"))
}

func keeperOf(daemon int) (int, error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", daemon))
	if err != nil {
		return 0, err
	}
	for _, list := range lists {
		children, _ := os.ReadFile(list) // a thread may have ended
		for _, child := range strings.Fields(string(children)) {
			line, _ := os.ReadFile("/proc/" + child + "/cmdline")
			if bytes.HasSuffix(line, []byte("\x00keeper\x00")) {
				return strconv.Atoi(child)
			}
		}
	}
	return 0, fmt.Errorf("daemon %d has no keeper", daemon)
}

// least counts several times and gives the smallest: on a busy machine writes and
// reads meet in other ways.
func least(times int, of func(string) (int, error)) func(string) (int, error) {
	return func(locald string) (int, error) {
		var all []int
		for range times {
			n, err := of(locald)
			if err != nil {
				return 0, err
			}
			all = append(all, n)
		}
		return slices.Min(all), nil
	}
}

// storing is the calls that the keeper makes to read and write while a service
// writes a mebibyte in writes of 64 KiB.
func storing(locald string) (int, error) {
	const config = `[project]
name = "guard"
[services.flood]
type = "worker"
command = ["sh", "-c", "mkfifo go; read word <go; dd if=text bs=64k 2>/dev/null; echo over; exec sleep 600"]
`
	return with(locald, config, func(p project, _, keeper int) (int, error) {
		line := strings.Repeat("x", 63) + "\n"
		if err := os.WriteFile(filepath.Join(p.dir, "text"), []byte(strings.Repeat(line, 1<<20/len(line))), 0o600); err != nil {
			return 0, err
		}
		before, err := calls(keeper)
		if err != nil {
			return 0, err
		}
		follow := exec.Command(p.locald, "--sandbox", "guard", "-C", p.dir, "logs", "--follow", "--raw", "flood")
		follow.Env = p.env()
		out, err := follow.StdoutPipe()
		if err != nil {
			return 0, err
		}
		if err := follow.Start(); err != nil {
			return 0, err
		}
		defer func() {
			_ = follow.Process.Kill()
			_ = follow.Wait()
		}()
		if err := p.release(); err != nil {
			return 0, err
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == "over" {
				after, err := calls(keeper)
				return after - before, err
			}
		}
		return 0, errors.New("the output ended before its last line")
	})
}

// release lets the service go on, which makes the FIFO first.
func (p project) release() error {
	for until := time.Now().Add(10 * time.Second); ; <-time.After(5 * time.Millisecond) {
		f, err := os.OpenFile(filepath.Join(p.dir, "go"), os.O_WRONLY, 0)
		if errors.Is(err, os.ErrNotExist) && time.Now().Before(until) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString("go\n")
		return errors.Join(err, f.Close())
	}
}

// calls is how many reads and writes a process has made.
func calls(pid int) (int, error) {
	return sum(fmt.Sprintf("/proc/%d/io", pid), "syscr:", "syscw:")
}

// idle is how often the daemon and the keeper of ten idle services wake up in ten
// seconds: the least of three times, since a collection may come between.
func idle(locald string) (int, error) {
	config := "[project]\nname = \"guard\"\n"
	for i := range 10 {
		config += fmt.Sprintf("[services.s%d]\ntype = \"worker\"\ncommand = [\"sleep\", \"600\"]\n", i)
	}
	return with(locald, config, func(_ project, daemon, keeper int) (int, error) {
		var windows []int
		for range 3 {
			before, err := switches(daemon, keeper)
			if err != nil {
				return 0, err
			}
			<-time.After(10 * time.Second)
			after, err := switches(daemon, keeper)
			if err != nil {
				return 0, err
			}
			windows = append(windows, after-before)
		}
		return slices.Min(windows), nil
	})
}

// switches is how often threads of processes have gone to sleep.
func switches(pids ...int) (int, error) {
	total := 0
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil {
			return 0, err
		}
		for _, thread := range threads {
			n, err := sum(thread, "voluntary_ctxt_switches:")
			if err != nil {
				return 0, err
			}
			total += n
		}
	}
	return total, nil
}

// sum adds the numbers of lines that begin with the words.
func sum(path string, words ...string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	total := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if !slices.Contains(words, name+":") {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		total += n
	}
	return total, nil
}
