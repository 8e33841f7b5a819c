// Package container runs services as OCI containers through the Docker API, as
// Docker, Docker Desktop, OrbStack, Colima and Podman speak it.
//
// It does not restart, wait for dependencies, judge health or choose ports,
// and it does not build images. It touches only what carries its own labels.
// It may import runtime and internal/keeper.
package container
