// Package build is what an image is built from: the files of a context, as a
// digest that tells whether they have changed, and as a tar for an engine.
//
// It does not build, talks to no engine and does not read what a Dockerfile
// says. It may import runtime.
package build
