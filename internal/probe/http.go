package probe

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/locald/locald/runtime"
)

// HTTP is ready when a GET of URL is answered with a status of 2xx or 3xx;
// redirects are not followed. On this host's own addresses only the process
// instance's own listener counts.
type HTTP struct {
	URL string
	Policy
}

// Run implements Check. It returns when ctx ends.
func (h HTTP) Run(ctx context.Context, in runtime.Instance, report func(Finding)) {
	target, err := url.Parse(h.URL)
	if err != nil || target.Host == "" {
		report(Finding{Detail: "health: " + strconv.Quote(h.URL) + " is not a URL"})
		return
	}
	client := &http.Client{
		Transport: &http.Transport{
			Proxy:             nil, // the service is here, whatever the environment says
			DisableKeepAlives: true,
			DialContext:       new(net.Dialer).DialContext,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // a service under development signs its own
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	h.steadily(ctx, report, func(ctx context.Context) string {
		if port := portOf(target); local(target.Hostname()) {
			if why := foreign(ctx, in, port); why != "" {
				return "GET " + target.RequestURI() + ": " + why
			}
		}
		if why := get(ctx, client, target.String()); why != "" {
			return "GET " + target.RequestURI() + ": " + why
		}
		return ""
	})
}

func portOf(u *url.URL) int {
	if port, err := strconv.Atoi(u.Port()); err == nil {
		return port
	}
	if u.Scheme == "https" {
		return 443
	}
	return 80
}

func get(ctx context.Context, client *http.Client, target string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err.Error()
	}
	request.Header.Set("User-Agent", "locald")
	response, err := client.Do(request)
	if err != nil {
		return plain(err)
	}
	response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return response.Status
	}
	return ""
}
