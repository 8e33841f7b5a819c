package network

import (
	"net/netip"
	"os"
	"strings"
)

const hostResolvConf = "/etc/resolv.conf"

// ResolvConf is the container's /etc/resolv.conf: it names NameServer, and the
// domains to search that the host's names now. Names without a dot are first
// looked up as they are: they are the services.
func ResolvConf() string {
	text := "nameserver " + NameServer + "\n"
	host, _ := os.ReadFile(hostResolvConf) // without one there is nothing to search
	if _, search := parseResolvConf(string(host)); len(search) > 0 {
		text += "search " + strings.Join(search, " ") + "\n"
	}
	return text + "options ndots:0\n"
}

// hostResolvers are the name servers that the host asks.
func hostResolvers() []netip.AddrPort {
	text, _ := os.ReadFile(hostResolvConf)
	servers, _ := parseResolvConf(string(text))
	if len(servers) == 0 { // as resolv.conf(5) has it
		servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return servers
}

// parseResolvConf reads what is understood and skips the rest, as resolvers do.
func parseResolvConf(text string) (servers []netip.AddrPort, search []string) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if ip, err := netip.ParseAddr(words[1]); err == nil {
				servers = append(servers, netip.AddrPortFrom(ip, 53))
			}
		case "search", "domain": // the last one counts
			search = words[1:]
		}
	}
	return servers, search
}
