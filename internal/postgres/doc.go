// Package postgres turns a managed Postgres (type = "postgres") into specs,
// as a native process or as a container, and knows its data and its
// credentials.
//
// It never decides whether the server is ready, never starts or stops the
// server itself, and deletes no data but the unfinished attempt of its own
// Create. Only package project imports it and, to look for programs, the daemon.
//
// A service's directory, which callers pass in and nobody else writes to,
// holds:
//
//	credentials.json  user, password and database, 0600
//	data              the data directory of a native server
//	data.new          one that is being made; never used, removed by the next Create
//	create            what making it needs for a moment: password files, a socket
//	container         what a container reads: its password, its init scripts
package postgres
