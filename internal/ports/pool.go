package ports

import (
	"fmt"
	"hash/fnv"
	"os"
	"strconv"
	"strings"

	"github.com/locald/locald/internal/sockets"
)

// The range that ports are chosen from: above what well known servers use,
// below what systems give to outgoing connections.
const (
	Lowest  = 10000
	Highest = 32767
)

// Pool is a snapshot of the ports that are taken, from which the ports of many
// services are chosen. It is not safe for concurrent use.
type Pool struct {
	taken map[int]bool
	avoid [Highest + 1]bool // not to be chosen, though perhaps free
}

// Open reads which ports are listened on, and which the system keeps for
// outgoing connections (ip_local_port_range) or for others
// (ip_local_reserved_ports). Where the system does not tell, Pick relies on
// trying.
func Open() (*Pool, error) {
	p := &Pool{taken: map[int]bool{5000: true, 7000: true}} // AirPlay on macOS
	if list, err := sockets.Listening(); err == nil {
		for _, s := range list {
			p.taken[int(s.Addr.Port())] = true
		}
	}
	ephemeral, err := readRanges("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return nil, err
	}
	reserved, err := readRanges("/proc/sys/net/ipv4/ip_local_reserved_ports")
	if err != nil {
		return nil, err
	}
	p.exclude(ephemeral)
	p.exclude(reserved)
	if p.full() {
		// Everything is for outgoing connections. A port that one of them may
		// take for a moment is better than none.
		p.avoid = [Highest + 1]bool{}
		p.exclude(reserved)
	}
	return p, nil
}

func (p *Pool) exclude(ranges [][2]int) {
	for _, r := range ranges {
		for port := max(r[0], Lowest); port <= min(r[1], Highest); port++ {
			p.avoid[port] = true
		}
	}
}

func (p *Pool) full() bool {
	for port := Lowest; port <= Highest; port++ {
		if !p.avoid[port] {
			return false
		}
	}
	return true
}

// Reserve keeps port from being picked: it is written in a configuration.
func (p *Pool) Reserve(port int) { p.taken[port] = true }

// Pick chooses a port that is free at this moment and gives it to nobody else.
// before is the port of the last time, 0 when there was none; it is kept when
// it is free. Otherwise the choice depends on key alone, for example
// "shop-1a2b/web/metrics", as far as ports are free. The keys that have a port
// from before are picked first, so that no other key takes it. 0 means that no
// port is free.
func (p *Pool) Pick(key string, before int) int {
	if before > 0 && before <= 65535 && p.take(before) {
		return before
	}
	const size = Highest - Lowest + 1
	sum := fnv.New64a()
	sum.Write([]byte(key))
	first := int(sum.Sum64() % size)
	for i := range size {
		port := Lowest + (first+i)%size
		if !p.avoid[port] && p.take(port) {
			return port
		}
	}
	return 0
}

func (p *Pool) take(port int) bool {
	if p.taken[port] {
		return false
	}
	p.taken[port] = true // whoever has it, nobody else gets it from here
	return Free(port)
}

// readRanges reads numbers and ranges of numbers from a file of /proc/sys; a
// file that is not there has none.
func readRanges(path string) ([][2]int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil //nolint:nilerror // another system, or a sandbox that hides it
	}
	ranges, err := parseRanges(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ranges, nil
}

// parseRanges reads "32768 60999" (one range) and "8080,9000-9010".
func parseRanges(text string) ([][2]int, error) {
	text = strings.TrimSpace(text)
	if low, high, ok := strings.Cut(strings.ReplaceAll(text, "\t", " "), " "); ok {
		text = low + "-" + strings.TrimSpace(high)
	}
	var ranges [][2]int
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		low, high, ok := strings.Cut(part, "-")
		if !ok {
			high = low
		}
		a, err := strconv.Atoi(low)
		if err != nil {
			return nil, fmt.Errorf("%q is no range of ports", part)
		}
		b, err := strconv.Atoi(high)
		if err != nil {
			return nil, fmt.Errorf("%q is no range of ports", part)
		}
		ranges = append(ranges, [2]int{a, b})
	}
	return ranges, nil
}
