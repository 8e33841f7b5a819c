// Package sockets tells which TCP ports of this host are listened on, and by
// whom.
//
// It opens no connection and reserves nothing; package ports does that. It is a
// leaf: it imports no other room of locald.
package sockets
