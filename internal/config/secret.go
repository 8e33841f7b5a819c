package config

import (
	"regexp"
	"strings"
	"sync"
)

// Mask is what is shown in place of a secret.
const Mask = "***"

var secretWords = []string{"TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "PRIVATE_KEY", "API_KEY", "ACCESS_KEY"}

// Secret reports whether the value of a variable is a secret: by its name, or
// because there is a URL with a password in it.
func Secret(name, value string) bool {
	upper := strings.ToUpper(name)
	for _, word := range secretWords {
		if strings.Contains(upper, word) {
			return true
		}
	}
	return MaskURL(value) != value
}

// urlPassword matches up to the last @ before the host ends, since people
// forget to escape the ones in a password.
var urlPassword = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://[^\s:/?#@"']*:)([^\s/?#"']+)@`)
})

// MaskURL is s with every password inside a URL replaced by Mask.
func MaskURL(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	return urlPassword().ReplaceAllString(s, "${1}"+Mask+"@")
}

// URLPasswords is every password inside a URL in s.
func URLPasswords(s string) []string {
	if !strings.Contains(s, "://") {
		return nil
	}
	var found []string
	for _, match := range urlPassword().FindAllStringSubmatch(s, -1) {
		found = append(found, match[2])
	}
	return found
}
