package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/locald/locald/hack/podman"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
)

// commands are what scripts can do beyond those of testscript.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"exits":       cmdExits,
	"await":       cmdAwait,
	"awaitlog":    cmdAwaitLog,
	"awaittext":   cmdAwaitText,
	"awaitdaemon": cmdAwaitDaemon,
	"json":        cmdJSON,
	"killdaemon":  cmdKillDaemon,
	"signal":      cmdSignal,
	"ended":       cmdEnded,
	"freeport":    cmdFreePort,
	"hold":        cmdHold,
	"engine":      cmdEngine,
	"nobody":      cmdNobody,
	"registry":    cmdRegistry,
	"badregistry": cmdBadRegistry,
	"podman":      cmdPodman,
	"ipc":         cmdIPC,
	"idle":        cmdIdle,
	"within":      cmdWithin,
	"memory":      cmdMemory,
	"fill":        cmdFill,
	"gone":        cmdGone,
	"same":        cmdSame,
	"killkeeper":  cmdKillKeeper,
	"daemongone":  cmdDaemonGone,
	"unwanted":    cmdUnwanted,
	"instance":    cmdInstance,
	"setuid":      cmdSetuid,
	"proxy":       cmdProxy,
}

// cmdExits runs a program that must end with a status:
//
//	exits 2 locald up
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%s exits with %d; want %d", strings.Join(args[1:], " "), got, want)
	}
}

// placesOf is where the script's daemon keeps things.
func placesOf(ts *testscript.TestScript) state.Places {
	places, err := state.Locate(ts.Getenv, ts.Getenv("LOCALD_SANDBOX"))
	ts.Check(err)
	return places
}

func clientOf(ts *testscript.TestScript) *ipc.Client {
	return &ipc.Client{Socket: placesOf(ts).Socket}
}

// cmdAwait waits until a service of the project in the current directory, or
// in -C DIR, is in a state, or in a state with a value of another key:
//
//	await web running
//	await web failed restarts=3
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(".")
	if len(args) > 2 && args[0] == "-C" {
		dir, args = ts.MkAbs(args[1]), args[2:]
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await [-C DIR] SERVICE STATE [KEY=VALUE...]")
	}
	want := map[string]string{"state": args[1]}
	for _, pair := range args[2:] {
		key, value, _ := strings.Cut(pair, "=")
		want[key] = value
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := clientOf(ts).Stream(ctx, ipc.CallWatch, ipc.StatusArgs{Project: ipc.Project{Dir: dir}, Services: args[:1]})
	ts.Check(err)
	defer func() { _ = stream.Close() }()
	var last string
	for {
		var status struct {
			Services []map[string]any `json:"services"`
		}
		if err := stream.Next(&status); err != nil {
			ts.Fatalf("%s is not %s: %v; the last was %s", args[0], strings.Join(args[1:], " "), err, last)
		}
		if len(status.Services) != 1 {
			continue
		}
		met := true
		for key, value := range want {
			met = met && plain(status.Services[0][key]) == value
		}
		if met {
			return
		}
		last = plain(status.Services[0])
	}
}

// cmdAwaitDaemon waits until the daemon answers, which something in the
// background starts.
func cmdAwaitDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: awaitdaemon")
	}
	dir := placesOf(ts).Dir
	answers := func() bool {
		_, err := daemonAt(context.Background(), dir)
		return err == nil
	}
	if !poll(answers) {
		ts.Fatalf("no daemon answers")
	}
}

// cmdAwaitText waits until a line of a file, which something in the background
// writes, matches a pattern.
func cmdAwaitText(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: awaittext FILE PATTERN")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	met := func() bool {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && pattern.Match(text)
	}
	if !poll(met) {
		ts.Fatalf("no line of %s matches %q", args[0], args[1])
	}
}

// poll waits for a condition of which no event tells.
func poll(met func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-limit.C:
			return false
		}
	}
	return true
}

// cmdAwaitLog waits until a service writes, or has written, a line that matches:
//
//	awaitlog web 'ready in \d+ ms'
func cmdAwaitLog(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: awaitlog SERVICE PATTERN")
	}
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := clientOf(ts).Stream(ctx, ipc.CallLogs, ipc.LogsArgs{
		Project: ipc.Project{Dir: ts.MkAbs(".")}, Services: args[:1], Follow: true, Tail: -1,
	})
	ts.Check(err)
	defer func() { _ = stream.Close() }()
	for {
		var line ipc.LogLine
		if err := stream.Next(&line); err != nil {
			ts.Fatalf("no line of %s matches %q: %v", args[0], args[1], err)
		}
		if pattern.MatchString(line.Line) {
			return
		}
	}
}

// cmdJSON looks into a JSON document, or into the last of several, one a line.
// PATH is keys and positions with dots between them; key=value finds an element
// of a list; len is the length. It compares with a value, matches a pattern, or
// keeps the value in a variable:
//
//	json stdout services.name=web.state running
//	json stdout services.name=web.started_at ~ '^2\d{3}-'
//	json stdout daemon.pid > PID
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 && len(args) != 4 {
		ts.Fatalf("usage: json FILE PATH VALUE | json FILE PATH ~ PATTERN | json FILE PATH > VARIABLE")
	}
	lines := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")
	document := lines[len(lines)-1]
	if strings.TrimSpace(lines[0]) == "{" { // one document in several lines
		document = strings.Join(lines, "\n")
	}
	decoder := json.NewDecoder(strings.NewReader(document))
	decoder.UseNumber()
	var value any
	ts.Check(decoder.Decode(&value))
	for _, step := range strings.Split(args[1], ".") {
		next, err := descend(value, step)
		if err != nil {
			if neg {
				return
			}
			ts.Fatalf("%s: %v in %s", args[1], err, plain(value))
		}
		value = next
	}
	got := plain(value)
	met := got == args[2]
	if len(args) == 4 {
		switch args[2] {
		case ">":
			ts.Setenv(args[3], got)
			return
		case "~":
			pattern, err := regexp.Compile(args[3])
			ts.Check(err)
			met = pattern.MatchString(got)
		default:
			ts.Fatalf("json: %q is neither ~ nor >", args[2])
		}
	}
	if met == neg {
		ts.Fatalf("%s is %q", args[1], got)
	}
}

func descend(value any, step string) (any, error) {
	switch v := value.(type) {
	case map[string]any:
		if next, there := v[step]; there {
			return next, nil
		}
	case []any:
		if step == "len" {
			return len(v), nil
		}
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(v) {
			return v[i], nil
		}
		if key, want, ok := strings.Cut(step, "="); ok {
			for _, element := range v {
				if object, ok := element.(map[string]any); ok && plain(object[key]) == want {
					return object, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("there is no %s", step)
}

// plain is a JSON value as text: a string without quotes.
func plain(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// cmdKillDaemon kills the daemon as nothing but the kernel can.
func cmdKillDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: killdaemon")
	}
	var record state.Daemon
	ts.Check(state.Read(filepath.Join(placesOf(ts).Dir, "daemon.json"), &record))
	ts.Check(end(record.PID, unix.SIGKILL))
}

// cmdSignal sends a signal to the program that was last started in the
// background.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	running := ts.BackgroundCmds()
	if neg || len(args) != 1 || len(running) == 0 {
		ts.Fatalf("usage: exec PROGRAM &NAME&; signal INT")
	}
	last := running[len(running)-1]
	holdingsOf(ts).signalled = last
	ts.Check(last.Process.Signal(unix.SignalNum("SIG" + args[0])))
}

// cmdEnded checks the status of the program that a signal was sent to, after it
// was waited for.
func cmdEnded(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: wait NAME; ended STATUS")
	}
	if got := strconv.Itoa(holdingsOf(ts).signalled.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("it ended with %s; want %s", got, args[0])
	}
}

// cmdGone waits until a process has ended.
func cmdGone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone PID")
	}
	pid, err := strconv.Atoi(args[0])
	ts.Check(err)
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	ts.Check(err)
	defer func() { _ = unix.Close(fd) }()
	if !ended(fd, patience) {
		ts.Fatalf("process %d still runs", pid)
	}
}

// cmdSame compares two values.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same A B")
	}
	if (args[0] == args[1]) == neg {
		ts.Fatalf("%q and %q", args[0], args[1])
	}
}

// cmdFreePort keeps the number of a port that nobody listens on in a variable.
// It lies where the kernel does not look for ports by itself.
func cmdFreePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: freeport VARIABLE...")
	}
	for _, name := range args {
		l := listenOutside(ts)
		_, port, err := net.SplitHostPort(l.Addr().String())
		ts.Check(err)
		ts.Check(l.Close())
		ts.Setenv(name, port)
	}
}

// listenOutside listens on a port below the ephemeral range, so that between
// its end and the use of the port no connection of anybody takes it.
func listenOutside(ts *testscript.TestScript) net.Listener {
	seed := time.Now().UnixNano()
	for i := range int64(10000) {
		port := 11000 + (seed/1000+i*7919)%9000
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return l
		}
	}
	ts.Fatalf("no port is free")
	return nil
}

// cmdHold holds a port, which it keeps in a variable, until the script ends.
func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hold VARIABLE")
	}
	l := listenOutside(ts)
	hold(ts, func() { _ = l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)
}

// cmdEngine puts something at PATH that is not a working engine, and points
// DOCKER_HOST there. none: nothing is there; refused: a socket that nobody
// listens on; denied: one that only root may open; hangs: one that accepts and
// never answers.
func cmdEngine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: engine none|refused|denied|hangs PATH")
	}
	path := ts.MkAbs(args[1])
	ts.Setenv("DOCKER_HOST", "unix://"+path)
	if args[0] == "none" {
		return
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	ts.Check(err)
	l.SetUnlinkOnClose(false)
	switch args[0] {
	case "refused":
		ts.Check(l.Close())
	case "denied":
		ts.Check(os.Chmod(path, 0))
		hold(ts, func() { _ = l.Close() })
	case "hangs":
		hold(ts, func() { _ = l.Close() })
	default:
		ts.Fatalf("engine: %q", args[0])
	}
}

// nobodyID is the user and group that own nothing.
const nobodyID = 65534

// cmdNobody gives the script's files to nobody, who can then be used with
// "stub as". Only root can do that.
func cmdNobody(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: nobody")
	}
	program, err := exec.LookPath("locald")
	ts.Check(err)
	bin := filepath.Dir(program)
	work := ts.Getenv("WORK")
	for _, dir := range []string{filepath.Dir(bin), bin, filepath.Dir(work)} {
		ts.Check(os.Chmod(dir, 0o755))
	}
	ts.Check(filepath.WalkDir(work, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobodyID, nobodyID)
	}))
}

// cmdRegistry serves an empty registry of images and keeps its address in a
// variable.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: registry VARIABLE")
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	hold(ts, server.Close)
	ts.Setenv(args[0], server.Listener.Addr().String())
}

// cmdPodman starts a Podman service of the script's own, with the images of the
// test, and points CONTAINER_HOST at it. -kill ends it as nothing but the kernel
// can, -again starts it again.
func cmdPodman(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: podman | podman -kill | podman -again")
	}
	h := holdingsOf(ts)
	switch {
	case len(args) == 0:
		service, err := podman.Start(context.Background(), "shell", "probe", "postgres")
		ts.Check(err)
		h.podman = service
		h.last = append(h.last, func() error { return service.Close(context.Background()) })
		ts.Setenv("CONTAINER_HOST", service.Host())
	case args[0] == "-kill":
		h.podman.Kill()
	case args[0] == "-again":
		ts.Check(h.podman.Serve(context.Background()))
	default:
		ts.Fatalf("podman: %q", args[0])
	}
}

// cmdIPC sends bytes to the daemon and writes what it answers to standard
// output. The bytes are those of a file, or with -x N as many times the letter
// x. -split sends them one by one; -open leaves the sending side open, as a
// client does that has more to say.
func cmdIPC(ts *testscript.TestScript, neg bool, args []string) {
	var split, open bool
	var request []byte
	for len(args) > 0 {
		switch {
		case args[0] == "-split":
			split = true
		case args[0] == "-open":
			open = true
		case args[0] == "-x" && len(args) > 1:
			n, err := strconv.Atoi(args[1])
			ts.Check(err)
			request, args = bytes.Repeat([]byte("x"), n), args[1:]
		default:
			request = []byte(ts.ReadFile(args[0]))
		}
		args = args[1:]
	}
	if neg {
		ts.Fatalf("usage: ipc [-split] [-open] FILE | ipc [-open] -x BYTES")
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: placesOf(ts).Socket, Net: "unix"})
	ts.Check(err)
	defer func() { _ = conn.Close() }()
	ts.Check(conn.SetDeadline(time.Now().Add(patience)))
	for len(request) > 0 {
		n := len(request)
		if split {
			n = 1
		}
		// The daemon may have heard enough and hung up.
		if _, err := conn.Write(request[:n]); err != nil {
			break
		}
		request = request[n:]
	}
	if !open {
		_ = conn.CloseWrite()
	}
	answer, err := io.ReadAll(conn)
	if len(answer) == 0 {
		ts.Check(err)
	}
	_, _ = ts.Stdout().Write(answer)
}

// cmdIdle opens connections to the daemon and says nothing on them.
func cmdIdle(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: idle COUNT")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	for range n {
		conn, err := net.Dial("unix", placesOf(ts).Socket)
		ts.Check(err)
		hold(ts, func() { _ = conn.Close() })
	}
}

// cmdWithin is exits with a limit on the time, which is a longer one under the
// race detector:
//
//	within 1s 0 locald status
func cmdWithin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: within DURATION STATUS PROGRAM [ARG...]")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	limit *= raceTime
	began := time.Now()
	cmdExits(ts, false, args[1:])
	if took := time.Since(began); took > limit {
		ts.Fatalf("%s took %v; it may take %v", strings.Join(args[2:], " "), took, limit)
	}
}

// cmdMemory checks that the daemon and the keeper have at no time held more
// memory than MEBIBYTES. Under the race detector programs take several times
// as much.
func cmdMemory(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: memory MEBIBYTES")
	}
	limit, err := strconv.Atoi(args[0])
	ts.Check(err)
	limit *= raceMemory
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d, err := daemonAt(ctx, placesOf(ts).Dir)
	ts.Check(err)
	kept := 0
	for _, p := range marked(ts.Getenv(mark)) {
		_ = unix.Close(p.fd)
		isKeeper := strings.HasPrefix(p.command, "locald keeper")
		if p.pid != d.PID && !isKeeper {
			continue
		}
		if isKeeper {
			kept++
		}
		if peak := peakOf(ts, p.pid); peak > limit {
			ts.Fatalf("%s: has held %d MiB; it may hold %d", p.command, peak, limit)
		} else {
			ts.Logf("%s: %d MiB", p.command, peak)
		}
	}
	if kept == 0 {
		ts.Fatalf("no keeper was found")
	}
}

// peakOf is the most memory that a process ever held, in MiB.
func peakOf(ts *testscript.TestScript, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	ts.Check(err)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			ts.Check(err)
			return kib >> 10
		}
	}
	ts.Fatalf("process %d has no VmHWM", pid)
	return 0
}

// cmdFill mounts a small file system of its own at DIR, which must not exist,
// and unmounts it when the script ends. -fill fills the one that is there, and
// -readonly makes it read-only.
func cmdFill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fill DIR | fill -full DIR | fill -empty DIR | fill -readonly DIR | fill -writable DIR")
	}
	dir := ts.MkAbs(args[len(args)-1])
	balloon := filepath.Join(dir, "balloon")
	switch args[0] {
	case "-full":
		f, err := os.Create(balloon)
		ts.Check(err)
		chunk := make([]byte, 4<<10)
		for err == nil {
			_, err = f.Write(chunk)
		}
		_ = f.Close()
		if !errors.Is(err, syscall.ENOSPC) {
			ts.Fatalf("fill: %v", err)
		}
	case "-empty":
		ts.Check(os.Remove(balloon))
	case "-readonly":
		ts.Check(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_BIND, ""))
	case "-writable":
		ts.Check(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	default:
		ts.Check(os.Mkdir(dir, 0o700))
		ts.Check(unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m,mode=0700"))
		ts.Defer(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
}
