// Command testimages builds the images that the tests run and loads them into
// a Docker engine, or pushes them to a registry. It needs no registry and, to
// build, no engine. What has not changed since the last time is not built and
// not loaded again.
//
//	locald-test/probe:1      a program that does what its arguments say
//	locald-test/healthy:1    the same with a HEALTHCHECK: /tmp/healthy exists
//	locald-test/shell:1      a POSIX shell and the usual programs
//	locald-test/postgres:15  this machine's Postgres; also called postgres:15
package main
