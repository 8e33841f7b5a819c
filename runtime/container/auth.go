package container

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
)

// helperTime is how long a credential helper may take.
const helperTime = 10 * time.Second

// credentials returns what `docker login` or `podman login` has stored for an
// image, in the form the API wants, or "" when there is nothing or no answer.
// They are found as builtin finds them.
func credentials(ctx context.Context, image reference.Named) string {
	repository, err := name.NewRepository(image.Name())
	if err != nil {
		return ""
	}
	found := login(ctx, repository)
	if found == (registry.AuthConfig{}) {
		return ""
	}
	found.ServerAddress = reference.Domain(image)
	text, _ := authconfig.Encode(found) // of plain text, which can always be encoded
	return text
}

// login is what is stored for a registry, or for a repository of it.
func login(ctx context.Context, of authn.Resource) registry.AuthConfig {
	return within(ctx, func(ctx context.Context) (none registry.AuthConfig) {
		auth, err := authn.Resolve(ctx, authn.DefaultKeychain, of)
		if err != nil {
			return none
		}
		found, err := authn.Authorization(ctx, auth)
		if err != nil {
			return none
		}
		return registry.AuthConfig{
			Username: found.Username, Password: found.Password, IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
		}
	})
}

// allLogins is everything that is stored, by server: builders that cannot ask
// are told all.
func allLogins(ctx context.Context) map[string]registry.AuthConfig {
	return within(ctx, func(context.Context) map[string]registry.AuthConfig {
		all := map[string]registry.AuthConfig{}
		for _, file := range loginFiles() {
			found, _ := file.GetAllCredentials() // those of helpers that do not answer are missing
			for server, one := range found {
				all[server] = registry.AuthConfig{
					Username: one.Username, Password: one.Password, IdentityToken: one.IdentityToken, RegistryToken: one.RegistryToken,
					ServerAddress: one.ServerAddress,
				}
			}
		}
		return all
	})
}

// loginFiles is the file of `docker login`, or where that has nothing those of
// `podman login`.
func loginFiles() []*configfile.ConfigFile {
	if file, err := config.Load(os.Getenv("DOCKER_CONFIG")); err == nil && (file.ContainsAuth() || len(file.CredentialHelpers) > 0) {
		return []*configfile.ConfigFile{file}
	}
	var files []*configfile.ConfigFile
	for _, path := range []string{filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "containers/auth.json"), os.Getenv("REGISTRY_AUTH_FILE")} {
		content, err := os.Open(path)
		if err != nil {
			continue
		}
		if file, err := config.LoadFromReader(content); err == nil {
			files = append(files, file)
		}
		_ = content.Close()
	}
	return files
}

// within gives up on helpers, which do not hear of the end of ctx.
func within[T any](ctx context.Context, ask func(context.Context) T) (answer T) {
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	answered := make(chan T, 1)
	go func() { answered <- ask(ctx) }()
	select {
	case answer = <-answered:
	case <-ctx.Done():
	}
	return answer
}
