package ipc_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"unicode/utf8"

	"github.com/locald/locald/ipc"
)

// FuzzRequest sends bytes as a request. Whatever they are, the answer is whole
// lines of JSON, and unless nothing was sent there is one. Nothing but one
// object that names a call of the table, in this protocol, without a field that
// is not known, is carried out; everything else is refused with a code and a
// reason.
func FuzzRequest(f *testing.F) {
	f.Attr("promise", "P16 F71 F72 F73 S5")
	for _, seed := range []string{
		`{"v":1,"call":"ping"}`,
		`{"v":2,"call":"ping"}`,
		`{"v":1,"call":"project.up","args":{"dir":"/x","services":["web"]}}`,
		`{"v":1,"call":"project.up","args":{"dir":"/x","Dir":"/y"}}`,
		`{"v":1,"call":"ping"} {"v":1,"call":"ping"}`,
		`{"v":1,"call":"project.up","call":"ping"}`, `{"v":1.0,"call":"ping"}`, `{"V":1,"call":"ping"}`, `{"v":1,"call":"PING"}`,
		`{"v":1,"call":"ping","args":{}}` + "\n", `{"v":1,"call":"ping","args":[]}`, `{"v":1,"call":"../ping"}`, "\xef\xbb\xbf{}",
		`{"v":1,"call":"logs.read","args":{"tail":1e999,"follow":"yes"}}`, `{"v":1,"call":"ping\u0000"}`,
		`{"v":1e999}`, `{"v":1,"call":"\ud800"}`, `[`, "\n", "null", "{\"v\":1,\"call\":\"ping\"}\nx",
	} {
		f.Add([]byte(seed))
	}
	l, err := net.Listen("unix", filepath.Join(f.TempDir(), "s"))
	if err != nil {
		f.Fatal(err)
	}
	ctx, calls := f.Context(), cannedTable()
	go func() { _ = ipc.Serve(ctx, l, calls) }()
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
		refused := false
		for line := range bytes.Lines(answer) {
			if !json.Valid(line) || !bytes.HasSuffix(line, []byte("\n")) {
				t.Fatalf("not a line of JSON: %q", line)
			}
			var fault struct{ Error *ipc.Error }
			if json.Unmarshal(line, &fault) == nil && fault.Error != nil {
				refused = true
				if fault.Error.Code == "" || fault.Error.Message == "" {
					t.Fatalf("refused without a reason: %q", line)
				}
			}
		}
		if len(answer) > 0 && !refused {
			meant(t, request, calls)
		}
	})
}

// meant fails unless a request that was carried out is beyond doubt.
func meant(t *testing.T, request []byte, calls ipc.Table) {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(request, &fields); err != nil || !utf8.Valid(request) {
		t.Fatalf("%q was carried out: %v", request, err)
	}
	for name := range fields {
		if name != "v" && name != "call" && name != "args" {
			t.Fatalf("%q was carried out, and what is %q?", request, name)
		}
	}
	var call string
	err := json.Unmarshal(fields["call"], &call)
	if _, known := calls[call]; err != nil || !known {
		t.Fatalf("%q was carried out, and there is no call %q", request, call)
	}
	if v := string(fields["v"]); v != strconv.Itoa(ipc.Protocol) {
		t.Fatalf("%q was carried out, in protocol %s", request, v)
	}
	if len(request) > ipc.MaxRequest {
		t.Fatalf("%d bytes were carried out", len(request))
	}
}
