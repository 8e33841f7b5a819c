// Package faultregistry is an OCI registry on the loopback that misbehaves on
// request, for tests of pulling. It keeps everything in memory and is no
// registry to rely on.
package faultregistry
