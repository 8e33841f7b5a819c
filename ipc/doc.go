// Package ipc holds the frames, the client and the server of the socket: the
// conversation between locald's daemon and everything that talks to it, and
// nothing of what the conversation is about. It is a leaf: it imports no other
// room of locald.
//
// One JSON request a connection, ended by a newline or by the client closing
// its side; the answer is one JSON value or, for a stream, newline-delimited
// JSON values. testdata/*.ndjson has a conversation for every call and is the
// specification for anyone who writes a client in another language.
package ipc
