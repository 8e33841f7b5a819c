package cli

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locald/locald/internal/logs"
	"github.com/locald/locald/ipc"
)

// rawStore is a log store that is being written.
type rawStore struct {
	t   *testing.T
	dir string
	in  *logs.Input
}

func newRawStore(t *testing.T) *rawStore {
	t.Helper()
	s := &rawStore{t: t, dir: filepath.Join(t.TempDir(), "logs", "web")}
	w, err := logs.OpenWriter(s.dir, logs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	s.in = w.Input(1, logs.Stdout)
	return s
}

func (s *rawStore) write(text string) {
	s.t.Helper()
	if err := s.in.Append([]byte(text), time.Now()); err != nil {
		s.t.Fatal(err)
	}
}

// followed is a daemon that says where the store is, and leaves.
func (s *rawStore) followed(left <-chan struct{}) ipc.Method {
	return ipc.Stream(func(ctx context.Context, _ ipc.LogsArgs, send func(ipc.LogStore) error) error {
		if err := send(ipc.LogStore{Dir: s.dir}); err != nil {
			return err
		}
		select {
		case <-left:
		case <-ctx.Done():
		}
		return nil
	})
}

// The raw output of one service is read where it is stored.
func TestRawOutputComesFromTheStore(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	store := newRawStore(t)
	store.write("one\n\x1b[31mtwo\n\xff\n")
	b.serve(ipc.Table{
		ipc.CallStore: ipc.Stream(func(_ context.Context, args ipc.LogsArgs, send func(ipc.LogStore) error) error {
			if args.Services[0] == "web" {
				return send(ipc.LogStore{Dir: store.dir})
			}
			return send(ipc.LogStore{Dir: filepath.Join(b.dir, "unseen", "logs", "db")})
		}),
		ipc.CallLogs: followed("from the daemon"),
	})
	for line, want := range map[string]string{
		"":         "one\n\x1b[31mtwo\n\xff\n",
		"-n 1":     "\xff\n",
		"--grep o": "one\n\x1b[31mtwo\n",
	} {
		if got := b.run(append([]string{"logs", "--raw", "web"}, strings.Fields(line)...)...); got.stdout != want || got.status != 0 {
			t.Errorf("%s: %+v, want %q", line, got, want)
		}
	}
	if got := b.run("logs", "--raw", "db"); got.stdout != "from the daemon\nthe last word\n" || got.status != 0 {
		t.Errorf("files that are not to be seen: %+v", got)
	}
}

// A follower of raw output ends with the user, and with the daemon.
func TestRawFollowerEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	store := newRawStore(t)
	left := make(chan struct{})
	b.serve(ipc.Table{ipc.CallStore: store.followed(left)})
	for _, ending := range []struct {
		exit int
		end  func()
	}{
		{130, func() { b.signals <- syscall.SIGINT }},
		{0, func() { close(left) }}, // the last: the daemon has left from then on
	} {
		store.write("old\n")
		out, errs, ended := b.background("logs", "-f", "--raw", "-n", "1", "web")
		out.await(t, "old\n")
		store.write("new\n")
		out.await(t, "new\n")
		ending.end()
		if got := <-ended; got != ending.exit || out.String() != "old\nnew\n" {
			t.Errorf("exit %d, want %d\n%s%s", got, ending.exit, out, errs)
		}
	}
}
