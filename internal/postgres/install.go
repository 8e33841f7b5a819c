package postgres

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// BinVariable names the variable that says where the Postgres programs are.
// When it is set they are looked for nowhere else.
const BinVariable = "LOCALD_POSTGRES_BIN"

// oldest is the first major version with scram-sha-256 passwords.
const oldest = 10

// Install is one set of Postgres programs on this machine.
type Install struct {
	Version string // the major version, "15"
	Bin     string // the directory of postgres and initdb, absolute
}

// Installs finds the Postgres programs of this machine, newest first: those of
// LOCALD_POSTGRES_BIN alone when it is set, else those of PATH, of Debian's,
// Red Hat's and Homebrew's places. Versions before 10 are left out. The version
// is that of the directory's name when it tells, otherwise what `postgres
// --version` says.
func Installs(getenv func(string) string) []Install {
	return installs(getenv, "/")
}

func installs(getenv func(string) string, root string) []Install {
	var found []Install
	seen := map[string]bool{}
	for _, dir := range places(getenv, root) {
		bin, ok := programs(dir)
		if !ok || seen[bin] {
			continue
		}
		seen[bin] = true
		version := versionOf(bin)
		if n, err := strconv.Atoi(version); err != nil || n < oldest {
			continue
		}
		found = append(found, Install{Version: version, Bin: bin})
	}
	slices.SortStableFunc(found, func(a, b Install) int {
		x, _ := strconv.Atoi(a.Version)
		y, _ := strconv.Atoi(b.Version)
		return cmp.Compare(y, x)
	})
	return found
}

func places(getenv func(string) string, root string) []string {
	if only := getenv(BinVariable); only != "" {
		return []string{only}
	}
	dirs := filepath.SplitList(getenv("PATH"))
	for _, pattern := range []string{
		"usr/lib/postgresql/*/bin",
		"usr/pgsql-*/bin",
		"opt/homebrew/opt/postgresql@*/bin",
		"usr/local/opt/postgresql@*/bin",
	} {
		match, _ := filepath.Glob(filepath.Join(root, pattern)) // the patterns are well formed
		dirs = append(dirs, match...)
	}
	return dirs
}

// programs tells the directory that really holds the programs which dir offers:
// a link into a versioned directory leads there, so that one install is found
// once.
func programs(dir string) (bin string, ok bool) {
	if !filepath.IsAbs(dir) || !executable(filepath.Join(dir, "postgres")) {
		return "", false
	}
	if target, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres")); err == nil {
		if real := filepath.Dir(target); executable(filepath.Join(real, "initdb")) {
			return real, true
		}
	}
	return dir, executable(filepath.Join(dir, "initdb"))
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o111 != 0
}

var (
	versionInPath = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`/(?:postgresql/|pgsql-|postgresql@)(\d+)/`)
	})
	versionInOutput = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`\(PostgreSQL\) (\d+)`)
	})
)

func versionOf(bin string) string {
	if m := versionInPath().FindStringSubmatch(bin + "/"); m != nil {
		return m[1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if m := versionInOutput().FindSubmatch(out); err == nil && m != nil {
		return string(m[1])
	}
	return ""
}

// major is the part of a version that decides whether data can be read.
func major(version string) string {
	m, _, _ := strings.Cut(version, ".")
	return m
}

// A tag says "pg16" somewhere, or begins with the version.
var (
	tagPg = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?:^|[.\-])pg(\d{2})(?:[.\-]|$)`)
	})
	tagFirst = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(\d{2})(?:[.\-]|$)`)
	})
)

// ImageMajor guesses the major version of Postgres in an image by its tag:
// "16" for "postgres:16.4-alpine", "pgvector/pgvector:pg16" and
// "timescale/timescaledb:latest-pg16", "" when the tag does not tell.
func ImageMajor(image string) string {
	image, _, _ = strings.Cut(image, "@")
	name := image[strings.LastIndex(image, "/")+1:]
	_, tag, _ := strings.Cut(name, ":")
	for _, pattern := range []*regexp.Regexp{tagPg(), tagFirst()} {
		if m := pattern.FindStringSubmatch(tag); m != nil {
			return m[1]
		}
	}
	return ""
}
