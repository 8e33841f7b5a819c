// Package images builds the container images that locald's tests run, from
// files of this machine and without an engine or a registry. It neither loads
// nor serves them: hack/testimages and hack/registry do.
package images
