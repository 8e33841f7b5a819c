package ipc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep the values of a request may nest. No call needs more
// than three.
const maxDepth = 32

// envelope is a Request as it arrives: the arguments wait until it is known
// what they should be.
type envelope struct {
	V    *int            `json:"v"`
	Call string          `json:"call"`
	Args json.RawMessage `json:"args"`
}

// failure is the object that carries an Error over the socket.
type failure struct {
	Error *Error `json:"error"`
}

// done is the last object of a stream whose values are not events.
type done struct {
	Event string `json:"event"`
}

// encode returns v as one line, the newline included.
func encode(v any) ([]byte, error) {
	if l, ok := v.(LogLine); ok {
		if line, ok := appendLogLine(make([]byte, 0, 128+len(l.Line)), &l); ok {
			return line, nil
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// readRequest reads one request: up to a newline, or to the end of what the
// client sends. It returns io.EOF when nothing at all was sent.
func readRequest(r io.Reader) ([]byte, error) {
	buf := make([]byte, 0, 8<<10)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		seen := len(buf)
		buf = buf[:seen+n]
		if i := bytes.IndexByte(buf[seen:], '\n'); i >= 0 {
			return oneLine(buf, seen+i)
		}
		switch {
		case len(buf) >= MaxRequest:
			return nil, invalid("a request is at most %d bytes", MaxRequest)
		case errors.Is(err, io.EOF) && len(bytes.TrimSpace(buf)) == 0:
			return nil, io.EOF
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return nil, err
		case len(buf) == cap(buf):
			buf = append(make([]byte, 0, min(2*cap(buf), MaxRequest)), buf...)
		}
	}
}

// oneLine is the request before the newline at position end, if nothing but
// white space follows it.
func oneLine(buf []byte, end int) ([]byte, error) {
	if rest := bytes.TrimSpace(buf[end+1:]); len(rest) > 0 {
		return nil, invalid("byte %d: one request a connection, and something follows the first", end+2)
	}
	return buf[:end], nil
}

// parseRequest reads the envelope of a request, and refuses everything that
// two readers could understand in two ways.
func parseRequest(line []byte) (*envelope, *Error) {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil, invalid("the request is empty")
	}
	if err := checkSyntax(line); err != nil {
		return nil, err
	}
	// Another protocol may have other fields, so its number counts first.
	var version struct {
		V *int `json:"v"`
	}
	if json.Unmarshal(line, &version) == nil && version.V != nil && *version.V != Protocol {
		return nil, &Error{
			Code:    CodeVersionMismatch,
			Message: fmt.Sprintf("the daemon speaks protocol %d, this client speaks %d", Protocol, *version.V),
			Hint:    "locald server restart",
		}
	}
	var req envelope
	if err := decodeStrict(line, &req, ""); err != nil {
		return nil, err
	}
	if req.V == nil {
		return nil, invalid(`field v is missing: it is the protocol number, %d`, Protocol)
	}
	return &req, nil
}

// decodeArgs fills args, a pointer, from what a request carries for a call.
func decodeArgs(raw json.RawMessage, args any) *Error {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	return decodeStrict(raw, args, "args.")
}

// decodeStrict is json.Unmarshal that refuses unknown fields. The value has
// passed checkSyntax. under is put before the names of fields.
func decodeStrict(raw []byte, v any, under string) *Error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		return nil
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return invalid("field %s: %s where %s is expected", fieldPath(under, wrong.Field), wrong.Value, kindName(wrong.Type.Kind()))
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		if bare, unquoteErr := strconv.Unquote(name); unquoteErr == nil {
			name = bare
		}
		fault := invalid("field %s%s is not known", under, name)
		fault.Hint = "locald server restart"
		return fault
	}
	return invalid("%s%v", under, err)
}

// fieldPath is the path of a field as the wire has it: structures that are
// embedded have no name there.
func fieldPath(under, path string) string {
	var parts []string
	for part := range strings.SplitSeq(path, ".") {
		if part != "" && (part[0] < 'A' || part[0] > 'Z') {
			parts = append(parts, part)
		}
	}
	return strings.TrimSuffix(under+strings.Join(parts, "."), ".")
}

// kindName is what JSON calls values of a kind.
func kindName(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "a whole number"
	}
	return "a " + k.String()
}

// checkSyntax reports whether line is exactly one JSON object without
// duplicate or misspelt keys, deep nesting or text that is not Unicode. It
// says at which byte, counted from 1.
func checkSyntax(line []byte) *Error {
	var whole json.RawMessage
	if err := json.Unmarshal(line, &whole); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return invalid("byte %d: %v", syntax.Offset, err)
		}
		return invalid("not JSON: %v", err)
	}
	if at := badText(line); at >= 0 {
		return invalid("byte %d: the text is not valid Unicode", at+1)
	}
	if first := bytes.TrimLeft(line, " \t\r"); first[0] != '{' {
		return invalid("byte 1: a request is an object")
	}
	return checkKeys(line)
}

// scope is an object or an array that is being read.
type scope struct {
	keys  map[string]bool // of an object; nil for an array
	value bool            // of an object: the next token is a value
}

// checkKeys walks valid JSON. encoding/json would take "DIR" for "dir" and let
// the last of two equal keys win; here both are errors.
func checkKeys(line []byte) *Error {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	var scopes []scope
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return invalid("byte %d: %v", dec.InputOffset(), err)
		}
		if d, ok := token.(json.Delim); ok && (d == '}' || d == ']') {
			scopes = scopes[:len(scopes)-1]
			continue
		}
		if fault := enter(scopes, token, dec.InputOffset()); fault != nil {
			return fault
		}
		switch token {
		case json.Delim('{'):
			scopes = append(scopes, scope{keys: map[string]bool{}})
		case json.Delim('['):
			scopes = append(scopes, scope{})
		}
		if len(scopes) > maxDepth {
			return invalid("byte %d: nested deeper than %d", dec.InputOffset(), maxDepth)
		}
	}
}

// enter accounts for one token, a key or the beginning of a value, in the
// innermost scope.
func enter(scopes []scope, token json.Token, at int64) *Error {
	if len(scopes) == 0 {
		return nil
	}
	s := &scopes[len(scopes)-1]
	if s.keys == nil {
		return nil
	}
	if s.value {
		s.value = false
		return nil
	}
	key, _ := token.(string)
	switch {
	case s.keys[key]:
		return invalid("byte %d: field %s is there twice", at, strconv.Quote(key))
	case strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
		return invalid("byte %d: field %s is not known", at, strconv.Quote(key))
	}
	s.keys[key] = true
	s.value = true
	return nil
}

// badText is the position of the first byte of valid JSON that is not UTF-8 or
// begins half a surrogate pair; -1 when there is none.
func badText(line []byte) int {
	for i := 0; i < len(line); {
		if line[i] == '\\' {
			size, ok := escape(line[i:])
			if !ok {
				return i
			}
			i += size
			continue
		}
		r, size := utf8.DecodeRune(line[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// escape is the size of the escape sequence that s begins with; ok is false
// for half a surrogate pair.
func escape(s []byte) (size int, ok bool) {
	if s[1] != 'u' {
		return 2, true
	}
	switch first := hex4(s[2:]); {
	case first < 0xD800 || first > 0xDFFF:
		return 6, true
	case first > 0xDBFF || len(s) < 12 || s[6] != '\\' || s[7] != 'u':
		return 6, false
	}
	second := hex4(s[8:])
	return 12, second >= 0xDC00 && second <= 0xDFFF
}

func hex4(s []byte) uint64 {
	n, _ := strconv.ParseUint(string(s[:4]), 16, 32)
	return n
}

func invalid(format string, args ...any) *Error {
	return &Error{Code: CodeInvalidRequest, Message: fmt.Sprintf(format, args...)}
}
