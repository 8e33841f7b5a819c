package config

import (
	"slices"
	"strings"
)

// VariablePrefix is what the names of the variables about a service begin
// with: upper case, "-" as "_", a leading digit gets "_".
func VariablePrefix(service string) string {
	prefix := upper(service)
	if prefix != "" && prefix[0] >= '0' && prefix[0] <= '9' {
		prefix = "_" + prefix
	}
	return prefix
}

// PortVariable is the name of the variable with a named port of a service.
func PortVariable(service, port string) string {
	return VariablePrefix(service) + "_" + upper(port) + "_PORT"
}

func upper(name string) string { return strings.ReplaceAll(strings.ToUpper(name), "-", "_") }

// postgresVariables are what a dependent of a Postgres gets.
var postgresVariables = []string{"DATABASE_URL", "PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSSLMODE"}

// postgresPort is what an image that is a Postgres listens on.
const postgresPort = 5432

// postgresImages are the names of images that are a Postgres and take
// POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB.
var postgresImages = []string{
	"postgres", "postgresql", "postgis", "pgvector", "timescaledb", "timescaledb-ha", "timescaledb-postgis", "citus", "paradedb",
}

// ImageName is the last part of an image's name: "pgvector" of
// "ghcr.io/pgvector/pgvector:pg16@sha256:…".
func ImageName(image string) string {
	image, _, _ = strings.Cut(image, "@")
	image = image[strings.LastIndexByte(image, '/')+1:]
	image, _, _ = strings.Cut(image, ":")
	return strings.ToLower(image)
}

// IsPostgresImage reports whether the image is a Postgres, by the last part of
// its name.
func IsPostgresImage(image string) bool {
	return slices.Contains(postgresImages, ImageName(image))
}

// IsPostgres reports whether dependents of s get a DATABASE_URL: it is of type
// postgres, or a container with a port whose image is one.
func (s *Service) IsPostgres() bool {
	return s.Type == TypePostgres || (s.Type == TypeContainer && s.Port != 0 && IsPostgresImage(s.Image))
}

// addressVariables are the names of the variables about s itself that its
// dependents get.
func addressVariables(s *Service) []string {
	prefix := VariablePrefix(s.Name)
	var names []string
	if s.HasPort() {
		names = append(names, prefix+"_URL", prefix+"_PORT")
	}
	if s.HasPort() || len(s.Ports) > 0 {
		names = append(names, prefix+"_HOST")
	}
	for port := range s.Ports {
		names = append(names, PortVariable(s.Name, port))
	}
	slices.Sort(names)
	return names
}
