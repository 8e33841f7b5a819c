package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func get(t *testing.T, s shop, path string) (status int, body string) {
	t.Helper()
	server := httptest.NewServer(s.routes())
	defer server.Close()
	answer, err := http.Get(server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(content)
}

func TestPagesWithoutDatabase(t *testing.T) {
	s := shop{database: "postgresql://app:secret@127.0.0.1:1/shop"}
	for path, want := range map[string]struct {
		status int
		words  string
	}{
		"/healthz": {http.StatusOK, "ok"},
		"/":        {http.StatusServiceUnavailable, "locald logs db"},
		"/none":    {http.StatusNotFound, ""},
	} {
		status, body := get(t, s, path)
		if status != want.status || !strings.Contains(body, want.words) {
			t.Errorf("%s: got %d %q, want %d %q", path, status, body, want.status, want.words)
		}
		if strings.Contains(body, "secret") {
			t.Errorf("%s shows the password", path)
		}
	}
}

func TestPrice(t *testing.T) {
	for cents, want := range map[int]string{0: "0.00", 5: "0.05", 1990: "19.90", 100000: "1000.00"} {
		if got := (product{Cents: cents}).Price(); got != want {
			t.Errorf("%d cents: got %s, want %s", cents, got, want)
		}
	}
}
