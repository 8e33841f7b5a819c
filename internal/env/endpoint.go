package env

import (
	"net"
	"net/url"
	"slices"
	"strconv"

	"github.com/locald/locald/internal/config"
)

// Endpoint is where a service is reached by whoever asks, and with what
// credentials.
type Endpoint struct {
	Scheme   string // "http" when empty; not looked at for a Postgres
	Host     string
	Port     int            // 0: none
	Ports    map[string]int // the further ones, by name
	User     string
	Password string
	Database string
	Postgres bool // it speaks Postgres: dependents get DATABASE_URL
}

// URL is the endpoint's address with its credentials, escaped:
// "postgresql://user:password@host:port/database", "http://host:port".
func (e Endpoint) URL() string {
	u := url.URL{Scheme: e.Scheme, Host: net.JoinHostPort(e.Host, strconv.Itoa(e.Port))}
	switch {
	case e.Postgres:
		u.Scheme = "postgresql"
	case u.Scheme == "":
		u.Scheme = "http"
	}
	switch {
	case e.Password != "":
		u.User = url.UserPassword(e.User, e.Password)
	case e.User != "":
		u.User = url.User(e.User)
	}
	if e.Database != "" {
		u.Path = "/" + e.Database
		// A slash in the name would otherwise begin a further part of the path.
		u.RawPath = "/" + url.PathEscape(e.Database)
	}
	return u.String()
}

// postgresVariables are what a dependent of a Postgres gets, as libpq reads
// them. https://www.postgresql.org/docs/current/libpq-envars.html
func (e Endpoint) postgresVariables() map[string]string {
	return map[string]string{
		"PGHOST":     e.Host,
		"PGPORT":     strconv.Itoa(e.Port),
		"PGUSER":     e.User,
		"PGPASSWORD": e.Password,
		"PGDATABASE": e.Database,
		"PGSSLMODE":  "disable",
	}
}

// addressVariables are the variables about the service of that name.
func (e Endpoint) addressVariables(service string) map[string]string {
	prefix := config.VariablePrefix(service)
	vars := map[string]string{}
	if e.Port != 0 {
		vars[prefix+"_URL"] = e.URL()
		vars[prefix+"_PORT"] = strconv.Itoa(e.Port)
	}
	if e.Port != 0 || len(e.Ports) > 0 {
		vars[prefix+"_HOST"] = e.Host
	}
	for name, port := range e.Ports {
		vars[config.PortVariable(service, name)] = strconv.Itoa(port)
	}
	return vars
}

// schemes are those of programs that do not speak HTTP, by the last part of
// their image's name and by their port.
var schemes = []struct {
	scheme string
	port   int
	images []string
}{
	{"redis", 6379, []string{"redis", "valkey", "keydb", "dragonfly", "redis-stack", "redis-stack-server"}},
	{"mysql", 3306, []string{"mysql", "mysql-server", "mariadb", "percona", "percona-server"}},
	{"amqp", 5672, []string{"rabbitmq", "lavinmq"}},
	{"mongodb", 27017, []string{"mongo", "mongodb", "mongodb-community-server"}},
}

// Scheme is the scheme of a service's URL: the written one, else that of a
// known image, else that of a known port, else "http".
func Scheme(s *config.Service) string {
	if s.Scheme != "" {
		return s.Scheme
	}
	if s.IsPostgres() {
		return "postgresql"
	}
	image := config.ImageName(s.Image)
	for _, known := range schemes {
		if slices.Contains(known.images, image) {
			return known.scheme
		}
	}
	for _, known := range schemes {
		if s.Port == known.port {
			return known.scheme
		}
	}
	return "http"
}

// IsPostgresImage reports whether the image is a Postgres that takes
// POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB, by the last part of its
// name.
func IsPostgresImage(image string) bool { return config.IsPostgresImage(image) }

// PostgresOf is what a Postgres image makes of its environment: POSTGRES_USER
// ("postgres"), POSTGRES_PASSWORD, and POSTGRES_DB (the user).
func PostgresOf(env map[string]string) (user, password, database string) {
	user, password, database = env["POSTGRES_USER"], env["POSTGRES_PASSWORD"], env["POSTGRES_DB"]
	if user == "" {
		user = "postgres"
	}
	if database == "" {
		database = user
	}
	return user, password, database
}
