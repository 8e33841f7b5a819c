package container

import (
	"context"
	"time"

	"github.com/distribution/reference"
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
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	found := make(chan string, 1)
	go func() { // a helper does not hear of the end of ctx
		auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repository)
		if err != nil {
			auth = authn.Anonymous
		}
		config, err := authn.Authorization(ctx, auth)
		if err != nil || *config == (authn.AuthConfig{}) {
			found <- ""
			return
		}
		text, _ := authconfig.Encode(registry.AuthConfig{ // of plain text, which can always be encoded
			Username: config.Username, Password: config.Password, IdentityToken: config.IdentityToken, RegistryToken: config.RegistryToken,
			ServerAddress: reference.Domain(image),
		})
		found <- text
	}()
	select {
	case text := <-found:
		return text
	case <-ctx.Done():
		return ""
	}
}
