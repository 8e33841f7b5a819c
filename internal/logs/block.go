package logs

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"sync"
	"time"
)

const (
	headerSize = 48
	version    = 1

	// maxLine is the length at which a line is cut.
	maxLine = 16 << 10
	// maxChunk is how much of one Append goes into one block.
	maxChunk = 512 << 10
	// maxPayload is what a reader accepts; a block holds a pending line and a
	// chunk.
	maxPayload = maxLine + maxChunk

	flagOpen = 1 // the last line has no newline
)

var magic = [4]byte{0xb1, 'L', 'G', 'b'}

// castagnoli takes a quarter of a millisecond to make, which commands do not
// need.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// Stream says where a line comes from.
type Stream string

// The streams of a store.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
	Event  Stream = "event" // what locald did to the service
	Gap    Stream = "gap"   // output that is not there
)

func (s Stream) code() byte {
	switch s {
	case Stdout:
		return 1
	case Stderr:
		return 2
	case Event:
		return 3
	case Gap:
		return 4
	}
	return 0
}

func streamOf(code byte) Stream {
	switch code {
	case 1:
		return Stdout
	case 2:
		return Stderr
	case 3:
		return Event
	case 4:
		return Gap
	}
	return ""
}

// header describes one block.
type header struct {
	stream Stream
	open   bool // the last line has no newline
	run    int
	lines  int
	length int
	first  uint64 // number of the first line
	before uint64 // payload bytes in the store before this block
	time   int64  // ns since 1970
}

// end is the number that follows the block's last line.
func (h header) end() uint64 { return h.first + uint64(h.lines) }

func (h header) encode(b *[headerSize]byte) {
	*b = [headerSize]byte{}
	copy(b[:], magic[:])
	b[4] = version
	b[5] = h.stream.code()
	if h.open {
		b[6] = flagOpen
	}
	binary.LittleEndian.PutUint32(b[8:], uint32(h.run))
	binary.LittleEndian.PutUint32(b[12:], uint32(h.lines))
	binary.LittleEndian.PutUint32(b[16:], uint32(h.length))
	binary.LittleEndian.PutUint64(b[24:], h.first)
	binary.LittleEndian.PutUint64(b[32:], h.before)
	binary.LittleEndian.PutUint64(b[40:], uint64(h.time))
	binary.LittleEndian.PutUint32(b[20:], check(b[:]))
}

// check is the CRC of a header, without the four bytes that hold it.
func check(b []byte) uint32 {
	table := castagnoli()
	sum := crc32.Update(0, table, b[:20])
	return crc32.Update(sum, table, b[24:headerSize])
}

// decode reads the header at the beginning of b, which holds at least
// headerSize bytes. ok is false when there is none.
func decode(b []byte) (h header, ok bool) {
	if [4]byte(b[:4]) != magic || b[4] != version || binary.LittleEndian.Uint32(b[20:]) != check(b) {
		return header{}, false
	}
	run, lines, length := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:]), binary.LittleEndian.Uint32(b[16:])
	h = header{
		stream: streamOf(b[5]),
		open:   b[6]&flagOpen != 0,
		run:    int(run),
		lines:  int(lines),
		length: int(length),
		first:  binary.LittleEndian.Uint64(b[24:]),
		before: binary.LittleEndian.Uint64(b[32:]),
		time:   int64(binary.LittleEndian.Uint64(b[40:])),
	}
	ok = h.stream != "" && run <= math.MaxInt32 && lines > 0 && length > 0 && lines <= length && length <= maxPayload &&
		h.first > 0 && h.first <= 1<<62 && h.before <= 1<<62
	return h, ok
}

func (h header) at() time.Time { return time.Unix(0, h.time).UTC() }

// whole finds how much of p ends lines, when the line that p continues already
// has carried bytes. p[end:] is the beginning of a line that may yet go on, and
// with the carried bytes, if end is 0, no longer than maxLine. lines counts the
// lines that p[:end] ends, those that are cut included.
func whole(p []byte, carried int) (end, lines int) {
	cuts := 0
	for {
		window := p[end:]
		room := maxLine - carried
		last := len(window) <= room
		if !last {
			window = window[:room+1]
		}
		switch i := bytes.LastIndexByte(window, '\n'); {
		case i >= 0:
			end += i + 1
		case last:
			return end, cuts + bytes.Count(p[:end], newline)
		default:
			end += room
			cuts++
		}
		carried = 0
	}
}

var newline = []byte{'\n'}

// split takes the first line off a payload. data has no newline; partial says
// that the line had none there.
func split(payload []byte) (data, rest []byte, partial bool) {
	i := bytes.IndexByte(payload[:min(len(payload), maxLine+1)], '\n')
	switch {
	case i >= 0:
		return payload[:i], payload[i+1:], false
	case len(payload) > maxLine:
		return payload[:maxLine], payload[maxLine:], true
	}
	return payload, nil, true
}

// count is the number of lines of a payload, and whether the last is open.
func count(payload []byte) (lines int, open bool) {
	for len(payload) > 0 {
		_, payload, open = split(payload)
		lines++
	}
	return lines, open
}
