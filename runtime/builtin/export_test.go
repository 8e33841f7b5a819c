package builtin

import (
	"bytes"
	"compress/gzip"
	"strings"
)

// Carry has r carry a maker.
func Carry(r *Runtime, program []byte) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(program) // into memory
	_ = w.Close()
	r.carried, r.options.Program = packed.Bytes(), nil
}

// MadeBy is the program that makes the containers of r.
func MadeBy(r *Runtime) string { return strings.Join(r.program(), " ") }
