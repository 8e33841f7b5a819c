package container

import "google.golang.org/protobuf/encoding/protowire"

// traceID marks the messages with which BuildKit says what it does: a
// StatusResponse of
// https://github.com/moby/buildkit/blob/master/api/services/control/control.proto,
// of which a few fields are read.
const traceID = "moby.buildkit.trace"

// vertex is one step of a build.
type vertex struct {
	digest, name, err      string
	cached, began, through bool
}

// download is how far something is that a vertex fetches or unpacks.
type download struct {
	id, vertex     string
	current, total int64
}

// written is something that a vertex wrote.
type written struct {
	vertex string
	text   []byte
}

// trace is one message.
type trace struct {
	vertexes  []vertex
	downloads []download
	output    []written
}

// parseTrace reads a message; what it does not understand it leaves out.
func parseTrace(b []byte) (t trace) {
	fields(b, func(field protowire.Number, b []byte, _ uint64) {
		switch field {
		case 1:
			t.vertexes = append(t.vertexes, parseVertex(b))
		case 2:
			t.downloads = append(t.downloads, parseDownload(b))
		case 3:
			t.output = append(t.output, parseOutput(b))
		}
	})
	return t
}

func parseVertex(b []byte) (v vertex) {
	fields(b, func(field protowire.Number, b []byte, n uint64) {
		switch field {
		case 1:
			v.digest = string(b)
		case 3:
			v.name = string(b)
		case 4:
			v.cached = n != 0
		case 5:
			v.began = true
		case 6:
			v.through = true
		case 7:
			v.err = string(b)
		}
	})
	return v
}

func parseDownload(b []byte) (d download) {
	fields(b, func(field protowire.Number, b []byte, n uint64) {
		switch field {
		case 1:
			d.id = string(b)
		case 2:
			d.vertex = string(b)
		case 4:
			d.current = int64(n)
		case 5:
			d.total = int64(n)
		}
	})
	return d
}

func parseOutput(b []byte) (w written) {
	fields(b, func(field protowire.Number, b []byte, _ uint64) {
		switch field {
		case 1:
			w.vertex = string(b)
		case 4:
			w.text = b
		}
	})
	return w
}

// fields calls each with the fields of a message: with the bytes, or with the
// number, that it has.
func fields(b []byte, each func(field protowire.Number, bytes []byte, number uint64)) {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		var bytes []byte
		var number uint64
		switch kind {
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(field, kind, b)
		}
		if n < 0 {
			return
		}
		b = b[n:]
		each(field, bytes, number)
	}
}
