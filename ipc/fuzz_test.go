package ipc_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/locald/locald/ipc"
)

// FuzzRequest sends bytes as a request. Whatever they are, the answer is whole
// lines of JSON, and unless nothing was sent there is one.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"v":1,"call":"ping"}`,
		`{"v":2,"call":"ping"}`,
		`{"v":1,"call":"project.up","args":{"dir":"/x","services":["web"]}}`,
		`{"v":1,"call":"project.up","args":{"dir":"/x","Dir":"/y"}}`,
		`{"v":1,"call":"ping"} {"v":1,"call":"ping"}`,
		`{"v":1e999}`, `{"v":1,"call":"\ud800"}`, `[`, "\n", "null", "{\"v\":1,\"call\":\"ping\"}\nx",
	} {
		f.Add([]byte(seed))
	}
	l, err := net.Listen("unix", filepath.Join(f.TempDir(), "s"))
	if err != nil {
		f.Fatal(err)
	}
	ctx := f.Context()
	go func() { _ = ipc.Serve(ctx, l, cannedTable()) }()
	f.Fuzz(func(t *testing.T, request []byte) {
		conn, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(request); err == nil {
			_ = conn.CloseWrite()
		}
		answer, _ := io.ReadAll(conn)
		if len(answer) == 0 && len(bytes.TrimSpace(request)) > 0 {
			t.Fatal("no answer")
		}
		for line := range bytes.Lines(answer) {
			if !json.Valid(line) || !bytes.HasSuffix(line, []byte("\n")) {
				t.Fatalf("not a line of JSON: %q", line)
			}
		}
	})
}
