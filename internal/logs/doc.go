// Package logs is the log store: what services wrote, in numbered lines, kept
// in append-only segments that any process may read while one writes.
//
// It does not hold pipes, does not know services or projects, and encodes
// nothing for people or for the wire. It is a leaf: it imports no other room of
// locald. The keeper writes; the daemon and the client read.
//
// # Format
//
// A store is a directory. Its segments are files named
// "<first number, 20 digits>-<run>.log". A segment is a sequence of blocks, a
// block a header of 48 bytes and a payload, all integers little-endian:
//
//	 0  magic "\xb1LGb"
//	 4  version, 1
//	 5  stream: 1 stdout, 2 stderr, 3 event, 4 gap
//	 6  flags: bit 0, the last line has no newline
//	 7  zero
//	 8  run, 32 bits
//	12  number of lines, 32 bits
//	16  length of the payload in bytes, 32 bits
//	20  check: CRC-32C of the header without these four bytes
//	24  number of the first line, 64 bits
//	32  payload bytes in the store before this block, 64 bits
//	40  time, nanoseconds since 1970, 64 bits
//
// The payload is what the service wrote, with its newlines. A line of more than
// 16 KiB is several lines of the store, cut every 16 KiB from where it begins in
// its block. The payload of a gap is the number of bytes that are missing, a
// space and the reason.
//
// A block whose end is not there yet is being written, or its writer was
// killed; readers wait, and the next writer repairs it.
package logs
