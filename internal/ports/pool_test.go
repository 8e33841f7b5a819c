package ports

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func pool(t *testing.T) *Pool {
	t.Helper()
	p, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// listenOn listens on a port that the pool has chosen, on one address.
func listenOn(t *testing.T, host string, port int) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { l.Close() })
}

func TestTheSameKeyGetsTheSamePort(t *testing.T) {
	one, two := pool(t), pool(t)
	a, b := one.Pick("shop-1/web/", 0), two.Pick("shop-1/web/", 0)
	if a != b || a < Lowest || a > Highest {
		t.Errorf("got %d and %d", a, b)
	}
}

func TestManyKeysGetPortsOfTheirOwn(t *testing.T) {
	p := pool(t)
	seen := map[int]string{}
	for i := range 500 {
		key := fmt.Sprintf("shop/web%d/", i)
		port := p.Pick(key, 0)
		if other, ok := seen[port]; ok || port < Lowest || port > Highest {
			t.Fatalf("%s gets %d, which %q has", key, port, other)
		}
		seen[port] = key
	}
}

func TestPortInUseIsPassedOver(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::1", "::"} {
		t.Run(host, func(t *testing.T) {
			key := "test/" + host
			first := pool(t).Pick(key, 0)
			before := pool(t) // does not know of the listener
			listenOn(t, host, first)
			if host != "::1" && Free(first) {
				t.Errorf("port %d is free with a listener on %s", first, host)
			}
			for name, p := range map[string]*Pool{"read before": before, "read after": pool(t)} {
				if host == "::1" && name == "read before" {
					continue // a bind on all IPv6 addresses may be allowed beside it
				}
				if second := p.Pick(key, 0); second == first {
					t.Errorf("%s: port %d is picked with a listener on %s", name, first, host)
				}
				if second := p.Pick(key, first); second == first {
					t.Errorf("%s: port %d is kept with a listener on %s", name, first, host)
				}
			}
		})
	}
}

func TestThePortOfTheLastTimeIsKept(t *testing.T) {
	p := pool(t)
	other := p.Pick("other", 0)
	p = pool(t)
	if got := p.Pick("web", other); got != other {
		t.Errorf("got %d, want %d again", got, other)
	}
	if got := p.Pick("api", other); got == other {
		t.Errorf("port %d was given twice", other)
	}
	reserved := pool(t)
	reserved.Reserve(other)
	if got := reserved.Pick("web", other); got == other {
		t.Errorf("reserved port %d was given away", other)
	}
	for _, port := range []int{5000, 7000, -1, 70000} {
		if got := p.Pick("mac", port); got == port {
			t.Errorf("port %d was kept", port)
		}
	}
}

func TestWhoHasAPortIsNamed(t *testing.T) {
	port := pool(t).Pick("taken", 0)
	if err := Taken(port); err != nil {
		t.Fatalf("before: %v", err)
	}
	listenOn(t, "127.0.0.1", port)
	err := Taken(port)
	if err == nil || !errors.Is(err, unix.EADDRINUSE) ||
		!strings.HasPrefix(err.Error(), fmt.Sprintf("port %d is taken by ", port)) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("got %v", err)
	}
	if err := Taken(70000); err == nil || err.Error() != "port 70000 cannot be used: there is no port 70000" {
		t.Errorf("got %v", err)
	}
}

func TestRangesOfTheSystem(t *testing.T) {
	for text, want := range map[string][][2]int{
		"32768\t60999\n":       {{32768, 60999}},
		"\n":                   nil,
		"8080,9000-9010,12345": {{8080, 8080}, {9000, 9010}, {12345, 12345}},
	} {
		if got, err := parseRanges(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := parseRanges("a-b"); err == nil {
		t.Error("a-b is a range")
	}
	p := pool(t)
	key := "web"
	first := p.Pick(key, 0)
	p = pool(t)
	p.exclude([][2]int{{first, first}})
	if got := p.Pick(key, 0); got == first {
		t.Errorf("port %d is reserved by the system", first)
	}
}
