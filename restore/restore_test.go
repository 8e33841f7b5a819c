package restore

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/locald/locald/runtime"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestDecide writes down the fate of every combination of what is on record and
// what is found.
func TestDecide(t *testing.T) {
	ref := func(run string) runtime.Ref {
		return runtime.Ref{Kind: runtime.Process, Run: runtime.RunID(run), ID: "x"}
	}
	web := Service{Project: "shop-1", Name: "web", Run: 3}
	with := func(change func(*Service)) Service {
		s := web
		change(&s)
		return s
	}
	tests := []struct {
		name     string
		services []Service
		found    []runtime.Ref
	}{
		{"wanted, its run is open, and it is found", []Service{with(func(s *Service) { s.Wanted, s.Open = true, true })}, []runtime.Ref{ref("shop-1/web#3")}},
		{"wanted, its run is open, and it is gone", []Service{with(func(s *Service) { s.Wanted, s.Open = true, true })}, nil},
		{"wanted, and a run is found that was never recorded", []Service{with(func(s *Service) { s.Wanted = true })}, []runtime.Ref{ref("shop-1/web#4")}},
		{"wanted, and it had ended", []Service{with(func(s *Service) { s.Wanted = true })}, nil},
		{"wanted, and found twice", []Service{with(func(s *Service) { s.Wanted, s.Open = true, true })}, []runtime.Ref{ref("shop-1/web#2"), ref("shop-1/web#3")}},
		{"not wanted, and it is found", []Service{with(func(s *Service) { s.Open = true })}, []runtime.Ref{ref("shop-1/web#3")}},
		{"not wanted, and it is gone", []Service{web}, nil},
		{"a task that completed", []Service{with(func(s *Service) { s.Wanted, s.Done = true, true })}, nil},
		{"a task that was in the middle", []Service{with(func(s *Service) { s.Wanted, s.Open = true, true })}, nil},
		{"found, and nothing is on record", nil, []runtime.Ref{ref("shop-1/web#3"), ref("nonsense")}},
	}
	var got bytes.Buffer
	for _, test := range tests {
		fmt.Fprintln(&got, test.name)
		for _, d := range Decide(test.services, test.found) {
			fmt.Fprintf(&got, "  %s\n", d)
		}
		fmt.Fprintln(&got)
	}
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/decide.golden", got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/decide.golden")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("testdata/decide.golden differs; review with: go test ./restore -update && git diff")
	}
}
