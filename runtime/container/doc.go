// Package container runs services as OCI containers through the Docker API, as
// Docker, Docker Desktop, OrbStack, Colima and Podman speak it.
//
// It does not restart, wait for dependencies, judge health or choose ports.
// Images are built by the engine. It touches only what carries its own labels.
// It may import runtime, internal/build and internal/keeper.
package container
