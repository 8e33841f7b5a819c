package ipc

import (
	"encoding/json"
	"fmt"
	"testing"
)

// hundred is the status of a project with a hundred services that run.
func hundred() Status {
	s := Status{Version: 1, Project: ProjectName{Name: "shop", Dir: "/home/ana/shop"}, Daemon: DaemonName{PID: 4711, Version: "1.0.0", StartedAt: "2026-01-01T10:00:00Z"}}
	for i := range 100 {
		s.Services = append(s.Services, Service{
			Name: fmt.Sprintf("service-%d", i), Type: "exec", Runtime: "process", Desired: "up", State: "running", Health: "healthy", PID: 5000 + i,
			Port: 40000 + i, Ports: map[string]int{"metrics": 41000 + i}, URL: fmt.Sprintf("http://127.0.0.1:%d", 40000+i), Run: 1,
			StartedAt: "2026-01-01T10:00:00.123456789Z", ReadyAt: "2026-01-01T10:00:00.234567891Z", DependsOn: []string{"db", "migrate"},
		})
	}
	return s
}

// BenchmarkStatus is what the answer to "locald status" costs: the daemon
// encodes it, the client decodes it.
func BenchmarkStatus(b *testing.B) {
	status := hundred()
	line, err := encode(status)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(line)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := encode(status); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(line)))
		b.ReportAllocs()
		for b.Loop() {
			var got Status
			if err := json.Unmarshal(line, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRequest is what the daemon does with a request before it calls the
// method.
func BenchmarkRequest(b *testing.B) {
	line := fmt.Appendf(nil, `{"v":%d,"call":%q,"args":{"dir":"/home/ana/shop","services":["web","db"]}}`, Protocol, CallStatus)
	b.ReportAllocs()
	for b.Loop() {
		request, bad := parseRequest(line)
		if bad != nil {
			b.Fatal(bad)
		}
		var args StatusArgs
		if bad := decodeArgs(request.Args, &args); bad != nil {
			b.Fatal(bad)
		}
	}
}
