package daemon

import (
	"bytes"
	"unicode/utf8"
)

// text is bytes as a JSON string can carry them, and the bytes themselves when
// that is not the same.
func text(b []byte) (string, []byte) {
	if utf8.Valid(b) {
		return string(b), nil
	}
	return string(bytes.ToValidUTF8(b, []byte("\uFFFD"))), bytes.Clone(b)
}
