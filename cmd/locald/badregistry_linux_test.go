package main

import (
	"fmt"
	goruntime "runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/locald/locald/hack/faultregistry"
)

// cmdBadRegistry serves images that cannot be used, and keeps the address in a
// variable and what messages call their layers in others: escaping:1 writes
// outside of itself (ESCAPING), damaged:1 is not what its digest says (DAMAGED),
// foreign:1 has nothing for this machine, large:1 unpacks to 4 MB (LARGE). With
// -login nobody is let in.
func cmdBadRegistry(ts *testscript.TestScript, neg bool, args []string) {
	login := len(args) == 2 && args[0] == "-login"
	if neg || len(args) != 1 && !login {
		ts.Fatalf("usage: badregistry [-login] VARIABLE")
	}
	r, err := faultregistry.Listen("127.0.0.1:0")
	ts.Check(err)
	hold(ts, func() { _ = r.Close() })
	ts.Setenv(args[len(args)-1], r.Addr())
	if login {
		r.Misbehave(faultregistry.Faults{User: "ana", Word: "secret"})
		return
	}
	var damaged v1.Hash
	for tag, files := range map[string]map[string][]byte{
		"escaping": {"../../etc/passwd": []byte("root::0:0::/:/bin/sh\n")},
		"damaged":  {"etc/name": []byte(strings.Repeat("damaged\n", 1000))},
		"large":    {"zeroes": make([]byte, 4<<20)},
	} {
		layer, err := crane.Layer(files)
		ts.Check(err)
		forUs, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: goruntime.GOARCH})
		ts.Check(err)
		image, err := mutate.AppendLayers(forUs, layer)
		ts.Check(err)
		_, err = r.Push(tag+":1", image)
		ts.Check(err)
		digest, err := layer.Digest()
		ts.Check(err)
		ts.Setenv(strings.ToUpper(tag), digest.Hex[:12])
		if tag == "damaged" {
			damaged = digest
		}
	}
	_, err = r.PushIndex("foreign:1", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: empty.Image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}},
	}))
	ts.Check(err)
	r.Misbehave(faultregistry.Faults{Only: fmt.Sprint(damaged), Flip: 100})
}
