// Package state knows where locald keeps things and keeps the small files that
// survive the daemon, each written whole or not at all, or line by line: which
// projects there are, what is wanted of their services, and how their last runs went.
//
// It does not decide anything from what it reads, and it holds no secrets
// except in the one file per project that is made for them (Environment).
package state
