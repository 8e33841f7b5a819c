package project

import "testing"

// TestTwoRequestsGetOnePort: two that see a service for the first time at once
// come to the same port, or the second would restart what the first has started.
func TestTwoRequestsGetOnePort(t *testing.T) {
	var m Machine
	pick := func(key string) int {
		t.Helper()
		port, err := m.pick(key, 0)
		if err != nil {
			t.Fatal(err)
		}
		return port
	}
	first := pick("shop/web/")
	if second := pick("shop/web/"); second != first {
		t.Errorf("%d, then %d", first, second)
	}
	if other := pick("blog/web/"); other == first {
		t.Errorf("another service gets %d too", other)
	}
	m.claim("fixed/web/", first)
	if moved := pick("shop/web/"); moved == first {
		t.Errorf("%d is written for somebody else", moved)
	}
}
