// Package project is one project as the daemon knows it: what its file says,
// turned into services that the supervisor keeps, with their ports, addresses,
// data and records.
//
// It decides nothing about when a service starts or ends, which is the
// supervisor's, and it does not know how any of it is shown or asked for, which
// is the daemon's.
package project
