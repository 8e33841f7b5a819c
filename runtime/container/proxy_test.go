package container_test

import (
	"testing"

	"github.com/locald/locald/hack/faultengine"
)

// newProxy stands between a runtime and the real engine until the test is over.
func newProxy(t *testing.T) *faultengine.Proxy {
	t.Helper()
	p, err := faultengine.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func appear(t *testing.T, p *faultengine.Proxy) {
	t.Helper()
	if err := p.Appear(); err != nil {
		t.Fatal(err)
	}
}
