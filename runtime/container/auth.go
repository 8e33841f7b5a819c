package container

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
)

// helperTime is how long a credential helper may take.
const helperTime = 10 * time.Second

// credentials returns what `docker login` has stored for a registry, in the
// form the API wants, or "" when there is nothing.
func credentials(ctx context.Context, env func(string) string, domain string) string {
	var config struct {
		Auths       map[string]struct{ Auth, IdentityToken string }
		CredsStore  string
		CredHelpers map[string]string
	}
	content, err := os.ReadFile(filepath.Join(dockerConfigDir(env), "config.json"))
	if err != nil || json.Unmarshal(content, &config) != nil {
		return ""
	}
	servers := []string{domain, "https://" + domain}
	if domain == "docker.io" {
		servers = []string{"https://index.docker.io/v1/"}
	}
	for _, server := range servers {
		helper := config.CredHelpers[server]
		if helper == "" {
			helper = config.CredsStore
		}
		if helper != "" {
			if found, ok := askHelper(ctx, helper, server); ok {
				return encoded(found)
			}
		}
		stored, ok := config.Auths[server]
		if !ok || stored.Auth == "" && stored.IdentityToken == "" {
			continue
		}
		plain, err := base64.StdEncoding.DecodeString(stored.Auth)
		if err != nil {
			continue
		}
		user, password, _ := strings.Cut(string(plain), ":")
		return encoded(registry.AuthConfig{Username: user, Password: password, IdentityToken: stored.IdentityToken, ServerAddress: server})
	}
	return ""
}

// askHelper speaks the protocol of docker-credential-helpers: the server on
// stdin, an object on stdout.
func askHelper(ctx context.Context, helper, server string) (registry.AuthConfig, bool) {
	if strings.ContainsAny(helper, "/\\") {
		return registry.AuthConfig{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	command := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	command.Stdin = strings.NewReader(server)
	answer, err := command.Output()
	var found struct{ Username, Secret string }
	if err != nil || json.NewDecoder(bytes.NewReader(answer)).Decode(&found) != nil || found.Secret == "" {
		return registry.AuthConfig{}, false
	}
	if found.Username == "<token>" {
		return registry.AuthConfig{IdentityToken: found.Secret, ServerAddress: server}, true
	}
	return registry.AuthConfig{Username: found.Username, Password: found.Secret, ServerAddress: server}, true
}

func encoded(auth registry.AuthConfig) string {
	text, err := authconfig.Encode(auth)
	if err != nil {
		return ""
	}
	return text
}
