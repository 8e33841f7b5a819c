package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locald/locald/runtime"
)

// instance is an instance whose listeners are what the test says.
type instance struct {
	kind   runtime.Kind
	ports  func() []int
	owns   func(pid int) bool
	health []runtime.Health
}

func (i *instance) Ref() runtime.Ref   { return runtime.Ref{Kind: i.kind} }
func (i *instance) Info() runtime.Info { return runtime.Info{} }
func (i *instance) Wait(context.Context) (runtime.Exit, error) {
	return runtime.Exit{}, runtime.ErrGone
}
func (i *instance) Stop(context.Context, time.Duration) error { return nil }
func (i *instance) Remove(context.Context) error              { return nil }
func (i *instance) Owns(pid int) bool                         { return i.owns != nil && i.owns(pid) }
func (i *instance) Listening(context.Context) ([]int, error)  { return i.ports(), nil }
func (i *instance) Health(ctx context.Context, changed func(runtime.Health)) error {
	for _, h := range i.health {
		changed(h)
	}
	<-ctx.Done()
	return nil
}

func listening(ports ...int) *instance {
	return &instance{kind: runtime.Process, ports: func() []int { return ports }}
}

// finding is a Finding and when it came.
type finding struct {
	Finding
	at time.Duration
}

// run runs a check until it returns or enough says so.
func run(t *testing.T, c Check, in runtime.Instance, enough func(Finding) bool) []finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var all []finding
	begin := time.Now()
	c.Run(ctx, in, func(f Finding) {
		all = append(all, finding{f, time.Since(begin)})
		if enough(f) {
			cancel()
		}
	})
	if len(all) == 0 {
		t.Fatal("nothing was found")
	}
	return all
}

func ready(f Finding) bool { return f.Ready }

func expect(t *testing.T, got []finding, want ...Finding) {
	t.Helper()
	same := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		same = same && got[i].Finding == want[i]
	}
	if !same {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestAliveIsReadyAtOnce(t *testing.T) {
	t.Parallel()
	expect(t, run(t, Alive{}, listening(), ready), Finding{Ready: true})
}

func TestListenIsReadyWithinAHundredthOfTheWait(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, 3 * time.Millisecond, 100 * time.Millisecond, 4 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			begin, asked := time.Now(), 0
			in := &instance{kind: runtime.Process, ports: func() []int {
				asked++
				if time.Since(begin) < after {
					return nil
				}
				return []int{9, 1}
			}}
			got := run(t, Listen{Port: 1}, in, ready)
			end := got[len(got)-1]
			if !end.Ready || end.at > after+max(after/100, time.Millisecond) {
				t.Errorf("listens after %v, found ready after %v", after, end.at)
			}
			if asked > 800 {
				t.Errorf("asked %d times in %v", asked, after)
			}
		})
	}
}

func TestListenSaysWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		expect(t, run(t, Listen{Port: 1}, listening(8080, 3001), func(Finding) bool { return true }),
			Finding{Detail: "it listens on 3001, 8080, not on 1", Hint: "port = 3001"})
		got := run(t, Listen{Port: 1, Wait: 10 * time.Second}, listening(), ready)
		expect(t, got,
			Finding{Detail: "nothing listens on 1", Hint: `type = "worker"`},
			Finding{Ready: true, Detail: "nothing listens on 1", Hint: `type = "worker"`})
		if at := got[1].at; at < 10*time.Second || at > 11*time.Second {
			t.Errorf("ready after %v", at)
		}
		expect(t, run(t, Listen{Port: 1, Wait: time.Second}, listening(8080), ready),
			Finding{Detail: "it listens on 8080, not on 1", Hint: "port = 8080"},
			Finding{Ready: true, Detail: "it listens on 8080, not on 1", Hint: "port = 8080"})
	})
}

// tcpServer listens on a free port of 127.0.0.1 and serves each connection.
func tcpServer(t *testing.T, serve func(net.Conn)) (addr string, port int) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return l.Addr().String(), l.Addr().(*net.TCPAddr).Port
}

func TestListenNamesWhoHasThePort(t *testing.T) {
	t.Parallel()
	_, port := tcpServer(t, func(c net.Conn) { c.Close() })
	got := run(t, Listen{Port: port}, listening(), func(f Finding) bool { return strings.Contains(f.Detail, "by this service") || f.Detail == "" })
	end := got[len(got)-1]
	if want := fmt.Sprintf("(process %d), not by this service", os.Getpid()); end.Ready || !strings.HasSuffix(end.Detail, want) {
		t.Errorf("got %+v, want %s", end, want)
	}
}

func TestPublishedWaitsForWhatIsBehindTheProxy(t *testing.T) {
	t.Parallel()
	for name, alive := range map[string]func(net.Conn){
		"silent": func(c net.Conn) { _, _ = c.Read(make([]byte, 1)); c.Close() },
		"talks":  func(c net.Conn) { fmt.Fprint(c, "220 ready"); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var connections atomic.Int32
			addr, _ := tcpServer(t, func(c net.Conn) {
				if connections.Add(1) < 10 {
					c.Close()
					return
				}
				alive(c)
			})
			expect(t, run(t, Published{addr}, &instance{kind: runtime.Container}, ready),
				Finding{Detail: addr + ": accepts connections and closes them at once"}, Finding{Ready: true})
			if n := connections.Load(); n != 10 {
				t.Errorf("ready after %d connections", n)
			}
		})
	}
}

func TestPostgresSpeaksTheProtocol(t *testing.T) {
	t.Parallel()
	answers := []string{
		"", // a proxy
		"E\x00\x00\x00\x29SFATAL\x00C57P03\x00Mthe database is starting\x00\x00",
		"HTTP/1.1 400 Bad Request\r\n\r\n",
		"R\x00\x00\x00\x08\x00\x00\x00\x05",
	}
	answers[1] = "E\x00\x00\x00" + string(rune(len(answers[1])-1)) + answers[1][5:]
	for last, ok := range map[string]bool{answers[3]: true, "E\x00\x00\x00\x1bSFATAL\x00C28P01\x00Mwrong\x00\x00\x00": true} {
		var n atomic.Int32
		started := make(chan string, 10)
		addr, port := tcpServer(t, func(c net.Conn) {
			defer c.Close()
			buf := make([]byte, 1000)
			got, _ := c.Read(buf)
			started <- string(buf[:got])
			i := int(n.Add(1)) - 1
			if i < 3 {
				fmt.Fprint(c, answers[i])
			} else {
				fmt.Fprint(c, last)
			}
		})
		got := run(t, Postgres{addr, "shop", "shopdb"}, listening(port), ready)
		at := "postgres at " + addr + ": "
		expect(t, got, Finding{Detail: at + "closed the connection without an answer"}, Finding{Detail: at + "the database is starting"},
			Finding{Detail: at + "answers in another protocol"}, Finding{Ready: ok})
		if s := <-started; !strings.HasPrefix(s[4:], "\x00\x03\x00\x00user\x00shop\x00database\x00shopdb\x00") {
			t.Errorf("start-up message %q", s)
		}
	}
}

func TestPostgresOfSomebodyElseDoesNotCount(t *testing.T) {
	t.Parallel()
	addr, port := tcpServer(t, func(c net.Conn) { fmt.Fprint(c, "R\x00\x00\x00\x08\x00\x00\x00\x05"); c.Close() })
	expect(t, run(t, Postgres{Addr: addr}, listening(1), func(Finding) bool { return true }),
		Finding{Detail: "the service does not listen on " + strconv.Itoa(port)})
}

func TestHTTPIsReadyWithASuccess(t *testing.T) {
	t.Parallel()
	var status atomic.Int32
	status.Store(503)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			status.Store(418)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(server.Close)
	port := server.Listener.Addr().(*net.TCPAddr).Port
	owned := false
	in := &instance{kind: runtime.Process, ports: func() []int {
		if owned {
			return []int{port}
		}
		return nil
	}}
	seen := 0
	got := run(t, HTTP{URL: server.URL + "/healthz", Policy: Policy{Interval: time.Millisecond, Retries: 2, StartPeriod: time.Hour}}, in, func(f Finding) bool {
		seen++
		switch seen {
		case 1:
			owned = true
		case 2:
			status.Store(302)
		case 3:
			status.Store(500)
		case 4:
			status.Store(204)
		}
		return seen == 5
	})
	expect(t, got,
		Finding{Detail: "GET /healthz: the service does not listen on " + strconv.Itoa(port)},
		Finding{Detail: "GET /healthz: 503 Service Unavailable"},
		Finding{Ready: true},
		Finding{Detail: "GET /healthz: 500 Internal Server Error"},
		Finding{Ready: true})
}

func TestHTTPThatNeverAnswersIsTimedOut(t *testing.T) {
	t.Parallel()
	addr, port := tcpServer(t, func(net.Conn) {})
	expect(t, run(t, HTTP{URL: "http://" + addr, Policy: Policy{Timeout: 20 * time.Millisecond}}, listening(port), func(Finding) bool { return true }),
		Finding{Detail: "GET /: no answer in time"})
}

func TestTCPCountsOnlyTheOwnListener(t *testing.T) {
	t.Parallel()
	addr, port := tcpServer(t, func(c net.Conn) { c.Close() })
	expect(t, run(t, TCP{Addr: addr}, listening(port), ready), Finding{Ready: true})
	expect(t, run(t, TCP{Addr: addr}, listening(1), func(Finding) bool { return true }), Finding{Detail: addr + ": the service does not listen on " + strconv.Itoa(port)})
	expect(t, run(t, TCP{Addr: addr}, &instance{kind: runtime.Container}, func(Finding) bool { return true }),
		Finding{Detail: addr + ": accepts connections and closes them at once"})
	expect(t, run(t, TCP{Addr: "nonsense"}, listening(1), ready), Finding{Detail: `health: "nonsense" is not an address`})
}

func TestWrittenChecksGoOnAtTheirInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		// Ready after 5 s, failing from 20.25 s to 23.25 s, failing once at 30 s.
		runner := func(context.Context, []string) (runtime.Exit, []byte, error) {
			now := time.Since(begin)
			exit := runtime.Exit{Known: true}
			if now < 5*time.Second || now > 20250*time.Millisecond && now < 23250*time.Millisecond || now > 30*time.Second && now < 30500*time.Millisecond {
				exit.Code = 1
			}
			return exit, []byte("first\nno database\n"), nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		var got []finding
		check := Command{Args: []string{"check"}, On: runner, Policy: Policy{Interval: 500 * time.Millisecond, Retries: 3, StartPeriod: 2 * time.Second}}
		check.Run(ctx, listening(), func(f Finding) { got = append(got, finding{f, time.Since(begin)}) })
		why := "health command exited with 1: no database"
		expect(t, got, Finding{Detail: why}, Finding{Detail: why, Overdue: true}, Finding{Ready: true}, Finding{Detail: why}, Finding{Ready: true})
		if len(got) != 5 {
			return
		}
		for i, between := range [][2]time.Duration{{0, 0}, {3500, 3900}, {5000, 5500}, {21250, 21800}, {23250, 23750}} {
			if at := got[i].at; at < between[0]*time.Millisecond || at > between[1]*time.Millisecond {
				t.Errorf("finding %d came after %v", i, at)
			}
		}
	})
}

func TestCommandOnTheHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shell := OnHost(dir, []string{"NAME=value", "PATH=" + os.Getenv("PATH")})
	for script, want := range map[string]Finding{
		"test $NAME = value && test $(pwd) = " + dir: {Ready: true},
		"echo one; echo two >&2; exit 3":             {Detail: "health command exited with 3: two"},
		"kill -9 $$":                                 {Detail: "health command killed by SIGKILL"},
		"sleep 1000 & sleep 1000":                    {Detail: "health command: no end in time"},
	} {
		got := run(t, Command{Args: []string{"sh", "-c", script}, On: shell, Policy: Policy{Timeout: 500 * time.Millisecond}}, listening(), func(Finding) bool { return true })
		expect(t, got, want)
	}
	got := run(t, Command{Args: []string{"/nowhere/check"}, On: shell}, listening(), func(Finding) bool { return true })
	expect(t, got, Finding{Detail: "health command: fork/exec /nowhere/check: no such file or directory"})
	got = run(t, Command{Args: []string{"true"}}, listening(), ready)
	expect(t, got, Finding{Detail: "health: a command cannot be run inside this service"})
}

func TestCommandOnTheHostLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// What the command leaves behind holds the pipe.
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), w.Fd())
	if _, err := os.Stat(path); err != nil {
		t.Skip(err)
	}
	for _, script := range []string{"sleep 1000 >" + path + " & exit 0", "sleep 1000 >" + path} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, _, err := OnHost(t.TempDir(), os.Environ())(ctx, []string{"sh", "-c", script})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a process is left: %v", err)
	}
}

func TestLogIsReadyWithItsLine(t *testing.T) {
	t.Parallel()
	lines := func(ctx context.Context, emit func([]byte)) error {
		for _, l := range []string{"starting", "ready to accept connections", "ready again"} {
			emit([]byte(l))
		}
		<-ctx.Done()
		return nil
	}
	expect(t, run(t, Log{regexp.MustCompile("^ready"), lines}, listening(), ready), Finding{Detail: "no line of its log matches ^ready"}, Finding{Ready: true})
	broken := func(context.Context, func([]byte)) error { return errors.New("no such store") }
	expect(t, run(t, Log{regexp.MustCompile("^ready"), broken}, listening(), ready), Finding{Detail: "no line of its log matches ^ready"}, Finding{Detail: "log: no such store"})
}

func TestHealthcheckFollowsTheEngine(t *testing.T) {
	t.Parallel()
	in := listening()
	in.health = []runtime.Health{runtime.HealthStarting, runtime.HealthStarting, runtime.Healthy, runtime.Unhealthy, runtime.Healthy}
	n := 0
	expect(t, run(t, Healthcheck{}, in, func(f Finding) bool { n++; return n == 4 }),
		Finding{Detail: "the image's health check has not passed yet"}, Finding{Ready: true}, Finding{Detail: "the image's health check fails"}, Finding{Ready: true})
}

// TestRealPostgres starts a server and asks it the moment it is found ready.
func TestRealPostgres(t *testing.T) {
	t.Parallel()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	path := os.Getenv("PATH")
	for _, bin := range found {
		path += ":" + bin
	}
	look := func(name string) string {
		for dir := range strings.SplitSeq(path, ":") {
			if file := filepath.Join(dir, name); exec.Command(file, "--version").Run() == nil {
				return file
			}
		}
		if strings.Contains(os.Getenv("LOCALD_TEST_REQUIRE"), "postgres") {
			t.Fatalf("%s is not there", name)
		}
		t.Skipf("%s is not there", name)
		return ""
	}
	initdb, server, psql := look("initdb"), look("postgres"), look("psql")
	dir, err := os.MkdirTemp("", "locald-probe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	as := asUser(t, dir)
	create := exec.Command(initdb, "-D", filepath.Join(dir, "data"), "-A", "trust", "-U", "shop", "-N", "--no-instructions")
	create.SysProcAttr = as
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := exec.Command(server, "-D", filepath.Join(dir, "data"), "-p", strconv.Itoa(port), "-h", "127.0.0.1", "-k", dir, "-F")
	cmd.SysProcAttr = as
	started := make(chan struct{})
	go func() {
		defer close(started)
		if err := cmd.Start(); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		<-started
		if cmd.Process != nil {
			_ = cmd.Process.Signal(os.Interrupt)
			_ = cmd.Wait()
		}
	})
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, at := range []string{addr, fmt.Sprintf("%s/.s.PGSQL.%d", dir, port)} {
		is := false
		Postgres{at, "shop", "postgres"}.Run(ctx, listening(port), func(f Finding) { is = f.Ready })
		if !is {
			t.Fatalf("%s was never ready", at)
		}
		out, err := exec.Command(psql, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "shop", "-d", "postgres", "-Atc", "select 42").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "42" {
			t.Errorf("psql: %v %s", err, out)
		}
	}
}

// asUser is how a server that refuses root is started; dir becomes its own.
func asUser(t *testing.T, dir string) *syscall.SysProcAttr {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	name := "postgres"
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Skip(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// paused is an instance that somebody pauses and lets go on, at fixed instants.
type paused struct {
	*instance
	at []time.Duration
}

func (p *paused) Paused(ctx context.Context, changed func(bool)) error {
	changed(false)
	began := time.Now()
	for i, at := range p.at {
		if !sleep(ctx, at-time.Since(began)) {
			return ctx.Err()
		}
		changed(i%2 == 0)
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestWhatIsPausedIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		in := &paused{listening(), []time.Duration{2 * time.Second, 4 * time.Second}}
		var got []finding
		began := time.Now()
		report := func(f Finding) { got = append(got, finding{f, time.Since(began)}) }
		Unpaused(ctx, in, report, func(report func(Finding)) {
			report(Finding{Detail: "not yet"})
			sleep(ctx, time.Second)
			report(Finding{Ready: true})
			sleep(ctx, 2*time.Second)
			report(Finding{Detail: "no answer"}) // of what stands still
			sleep(ctx, 2*time.Second)
			report(Finding{Ready: true})
		})
		want := []finding{
			{Finding{Detail: "not yet"}, 0},
			{Finding{Ready: true}, time.Second},
			{Finding{Detail: "somebody has paused it", Hint: "docker unpause "}, 2 * time.Second},
			{Finding{Detail: "no answer"}, 4 * time.Second},
			{Finding{Ready: true}, 5 * time.Second},
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	})
}

func TestHTTPAnswersThatAreNoStatus(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]Finding{
		"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n": {Ready: true},
		"HTTP/1.0 204\r\n\r\n":       {Ready: true},
		"220 mail.example ESMTP\r\n": {Detail: `GET /: answered "220 mail.example ESMTP", which is not HTTP`},
		"HTTP/1.1 2\r\n\r\n":         {Detail: `GET /: answered "HTTP/1.1 2", which is not HTTP`},
		"":                           {Detail: "GET /: closed the connection without an answer"},
	} {
		addr, port := tcpServer(t, func(c net.Conn) {
			_, _ = bufio.NewReader(c).ReadString('\n')
			fmt.Fprint(c, answer)
			c.Close()
		})
		expect(t, run(t, HTTP{URL: "http://" + addr}, listening(port), func(Finding) bool { return true }), want)
	}
}

func TestHTTPSIsAskedElsewhere(t *testing.T) {
	t.Parallel()
	var asked string
	h := HTTP{URL: "https://192.0.2.1/healthz", Secure: func(_ context.Context, url string) (string, error) {
		asked = url
		return "401 Unauthorized", nil
	}}
	expect(t, run(t, h, listening(1), func(Finding) bool { return true }), Finding{Detail: "GET /healthz: 401 Unauthorized"})
	if asked != h.URL {
		t.Errorf("asked %q", asked)
	}
}
