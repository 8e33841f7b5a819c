package host

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/locald/locald/internal/engines"
)

// A service under development has a certificate of its own, and may answer with a
// redirect.
func TestGetOfASelfSignedService(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.RedirectHandler("http://192.0.2.1/", http.StatusFound))
	if got, want := get(t.Context(), server.URL), (engines.Got{Status: "302 Found"}); got != want {
		t.Errorf("%+v; want %+v", got, want)
	}
	server.Close()
	if got, want := get(t.Context(), server.URL), (engines.Got{Why: "connection refused"}); got != want {
		t.Errorf("%+v; want %+v", got, want)
	}
}
