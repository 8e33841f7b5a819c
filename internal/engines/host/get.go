package host

import (
	"context"
	"crypto/tls"
	"net/http"

	"github.com/locald/locald/internal/engines"
	"github.com/locald/locald/internal/probe"
)

var client = &http.Client{
	Transport: &http.Transport{
		Proxy:             nil, // the service is here, whatever the environment says
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // a service under development signs its own
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// get asks for the daemon, which has no library for TLS.
func get(ctx context.Context, url string) engines.Got {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return engines.Got{Why: err.Error()}
	}
	request.Header.Set("User-Agent", "locald")
	response, err := client.Do(request)
	if err != nil {
		return engines.Got{Why: probe.Plain(err)}
	}
	_ = response.Body.Close() // nothing of it is read
	return engines.Got{Status: response.Status}
}
